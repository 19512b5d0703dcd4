//! Go's template language, as notifications and rule annotations use it.
//!
//! Text with `{{ actions }}` goes in, a [`Value`] tree is walked, text comes out. The language is that of
//! Go's `text/template` (pipelines, variables, `if`, `range`, `with`, `define`, `template`, trim marks),
//! so templates written for Prometheus and Alertmanager keep working. What a template may *do* is a
//! [`Functions`] table given by the caller; there is no way from a template to files or the network.
//!
//! Templates come from configuration and their data from the wire: depth, steps and output are bounded.
//!
//! ```
//! use pharos_common::template::{Functions, Template, Value};
//!
//! let template = Template::parse("{{ .gpu | toUpper }} is {{ printf \"%.1f\" .value }} C").unwrap();
//! let data = Value::map([("gpu", Value::from("gpu0")), ("value", Value::Float(91.27))]);
//! assert_eq!(template.render(&data, &Functions::standard()).unwrap(), "GPU0 is 91.3 C");
//! ```

mod eval;
mod format;
mod functions;
mod go_time;
mod host_names;
mod humanize;
mod lexer;
mod methods;
mod parser;
mod value;

pub use functions::{FunctionError, Functions, TemplateFunction};
pub use humanize::{humanize, humanize_1024, humanize_duration, humanize_percentage};
pub use value::{TimeValue, Value};

use parser::Node;
use std::collections::HashMap;
use std::sync::Arc;

/// A fault in a template or in rendering it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template line {line}: {message}")]
pub struct TemplateError {
    /// Line within the template, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl TemplateError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        TemplateError { line, message: message.into() }
    }
}

/// How the output of actions is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// As it is.
    #[default]
    None,
    /// `& < > " '` become entities, except in what `safeHtml` marked.
    Html,
}

type Definitions = HashMap<String, Arc<[Node]>>;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    body: Arc<[Node]>,
    definitions: Arc<Definitions>,
}

impl Template {
    /// Parses a template. Names of functions and of other templates are looked up when it is rendered.
    ///
    /// # Errors
    /// If the text is no template; the error names the line.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let parsed = parser::parse(text)?;
        Ok(Template { body: parsed.body.into(), definitions: Arc::new(parsed.definitions) })
    }

    /// Renders with `data` as `.` and `$`.
    ///
    /// # Errors
    /// If a field, function or template is missing, a function fails, or a bound is reached.
    pub fn render(&self, data: &Value, functions: &Functions) -> Result<String, TemplateError> {
        self.render_with(data, functions, &Library::default(), Escaping::None)
    }

    /// Renders with the templates of a library at hand, and protects the output of actions.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_with(
        &self,
        data: &Value,
        functions: &Functions,
        library: &Library,
        escaping: Escaping,
    ) -> Result<String, TemplateError> {
        eval::render(&self.body, &[&self.definitions, &library.definitions], data, functions, escaping)
    }

    /// The names of the functions it calls that `functions` lacks: a check for configuration time.
    pub fn missing_functions(&self, functions: &Functions) -> Vec<String> {
        let mut missing = Vec::new();
        let bodies = std::iter::once(&self.body).chain(self.definitions.values());
        for body in bodies {
            parser::visit_functions(body, &mut |name| {
                if !functions.has(name) && !missing.iter().any(|known| known == name) {
                    missing.push(name.to_owned());
                }
            });
        }
        missing
    }

    /// The names of the templates it calls that neither it nor `library` defines.
    pub fn missing_templates(&self, library: &Library) -> Vec<String> {
        let mut missing = Vec::new();
        let bodies = std::iter::once(&self.body).chain(self.definitions.values());
        for body in bodies {
            parser::visit_templates(body, &mut |name| {
                let known = self.definitions.contains_key(name) || library.definitions.contains_key(name);
                if !known && !missing.iter().any(|seen| seen == name) {
                    missing.push(name.to_owned());
                }
            });
        }
        missing
    }
}

/// Named templates (`{{ define "name" }}`) that others call.
#[derive(Clone, Debug, Default)]
pub struct Library {
    definitions: Definitions,
}

impl Library {
    /// Adds the definitions of a text; a name defined again replaces the earlier one.
    ///
    /// # Errors
    /// If the text is no template.
    pub fn add(&mut self, text: &str) -> Result<(), TemplateError> {
        let parsed = parser::parse(text)?;
        self.definitions.extend(parsed.definitions);
        Ok(())
    }

    /// Whether a name is defined.
    pub fn has(&self, name: &str) -> bool {
        self.definitions.contains_key(name)
    }
}

#[cfg(test)]
mod tests;
