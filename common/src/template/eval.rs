//! Walks the nodes and writes text.

use super::format::display;
use super::functions::{self, Functions};
use super::parser::{Command, Node, Operand, Pipeline};
use super::{Definitions, Escaping, TemplateError, Value, methods};
use std::sync::Arc;

/// Templates that call templates.
const CALL_DEPTH_MAX: usize = 100;
/// Nodes evaluated in one rendering: far more than a message needs, and done in a fraction of a second.
const STEPS_MAX: usize = 100_000;
/// Bytes one rendering may write.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

pub(super) fn render(
    body: &[Node],
    definitions: &[&Definitions],
    data: &Value,
    functions: &Functions,
    escaping: Escaping,
) -> Result<String, TemplateError> {
    let mut run = Run {
        definitions,
        functions,
        escaping,
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        call_depth: 0,
        steps: 0,
        line: 1,
    };
    run.nodes(body, data)?;
    Ok(run.out)
}

struct Run<'a> {
    definitions: &'a [&'a Definitions],
    functions: &'a Functions,
    escaping: Escaping,
    out: String,
    /// Innermost last; `$` is the one without a name.
    variables: Vec<(String, Value)>,
    call_depth: usize,
    steps: usize,
    line: usize,
}

enum Flow {
    On,
    Break,
    Continue,
}

impl Run<'_> {
    fn fault<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, message))
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return self.fault(format!("more than {STEPS_MAX} steps"));
            }
            match self.node(node, dot)? {
                Flow::On => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action { line, pipeline } => {
                self.line = *line;
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.write_value(&value)?;
                }
            }
            Node::If { line, pipeline, body, otherwise } => {
                self.line = *line;
                let scope = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let flow = self.nodes(if value.is_true() { body } else { otherwise }, dot)?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::With { line, pipeline, body, otherwise } => {
                self.line = *line;
                let scope = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let flow =
                    if value.is_true() { self.nodes(body, &value)? } else { self.nodes(otherwise, dot)? };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range { line, pipeline, body, otherwise } => {
                self.line = *line;
                return self.range(pipeline, body, otherwise, dot);
            }
            Node::Template { line, name, data } => {
                self.line = *line;
                self.call(name, data.as_ref(), dot)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let value = self.commands(&pipeline.commands, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::Nil => Vec::new(),
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (Value::Int(index as i64), item.clone()))
                .collect(),
            Value::Map(entries) => {
                entries.iter().map(|(key, value)| (Value::string(key), value.clone())).collect()
            }
            Value::Int(count) if (0..=STEPS_MAX as i64).contains(count) => {
                (0..*count).map(|index| (Value::Int(index), Value::Int(index))).collect()
            }
            Value::Int(count) if *count > STEPS_MAX as i64 => {
                return self.fault(format!("more than {STEPS_MAX} steps"));
            }
            other => return self.fault(format!("range can't iterate over {}", other.kind())),
        };
        if items.is_empty() {
            let flow = self.nodes(otherwise, dot)?;
            self.variables.truncate(outer);
            return Ok(flow);
        }
        for (key, item) in items {
            match pipeline.variables.as_slice() {
                [] => {}
                [only] => self.bind(only, pipeline.declares, item.clone())?,
                [first, second, ..] => {
                    self.bind(first, pipeline.declares, key)?;
                    self.bind(second, pipeline.declares, item.clone())?;
                }
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(outer);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn call(&mut self, name: &str, data: Option<&Pipeline>, dot: &Value) -> Result<(), TemplateError> {
        let data = match data {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        let Some(body) = self.definitions.iter().find_map(|definitions| definitions.get(name)) else {
            return self.fault(format!("template {name:?} is not defined"));
        };
        if self.call_depth >= CALL_DEPTH_MAX {
            return self.fault(format!("templates call each other deeper than {CALL_DEPTH_MAX}"));
        }
        let body = Arc::clone(body);
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), data.clone())]);
        self.call_depth += 1;
        let outcome = self.nodes(&body, &data);
        self.call_depth -= 1;
        self.variables = outer;
        outcome.map(|_| ())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return self.fault(format!("the output is larger than {OUTPUT_BYTES_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn write_value(&mut self, value: &Value) -> Result<(), TemplateError> {
        match (self.escaping, value) {
            (Escaping::Html, Value::Html(text)) => self.write(text),
            (Escaping::Html, value) => self.write(&functions::escape_html(&display(value))),
            (Escaping::None, value) => self.write(&display(value)),
        }
    }

    fn bind(&mut self, name: &str, declares: bool, value: Value) -> Result<(), TemplateError> {
        if declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => self.fault(format!("undefined variable \"${name}\"")),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(&pipeline.commands, dot)?;
        if let [name, ..] = pipeline.variables.as_slice() {
            self.bind(name, pipeline.declares, value.clone())?;
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Command], dot: &Value) -> Result<Value, TemplateError> {
        let mut last: Option<Value> = None;
        for command in commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or_default())
    }

    /// `operand arguments…`, with the result of the command before as the last argument.
    fn command(
        &mut self,
        command: &Command,
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.fault(format!("more than {STEPS_MAX} steps"));
        }
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Nil) };
        match first {
            Operand::Function(name) => self.function(name, rest, piped, dot),
            Operand::Field(path) => {
                let arguments = self.arguments(rest, piped, dot)?;
                self.walk(dot.clone(), path, arguments)
            }
            Operand::Variable(name, path) => {
                let value = self.variable(name)?;
                let arguments = self.arguments(rest, piped, dot)?;
                self.walk(value, path, arguments)
            }
            Operand::Nested(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                let arguments = self.arguments(rest, piped, dot)?;
                self.walk(value, path, arguments)
            }
            other if rest.is_empty() && piped.is_none() => self.operand(other, dot),
            _ => self.fault("can't give argument to non-function"),
        }
    }

    fn arguments(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Vec<Value>, TemplateError> {
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        Ok(arguments)
    }

    fn function(
        &mut self,
        name: &str,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        // These two stop at the first argument that decides.
        if matches!(name, "and" | "or") {
            let stop_at = name == "or";
            let mut last = Value::Nil;
            for operand in operands {
                last = self.operand(operand, dot)?;
                if last.is_true() == stop_at {
                    return Ok(last);
                }
            }
            return match piped {
                Some(value) => Ok(value),
                None if operands.is_empty() => self.fault(format!("{name}: wants at least 1 argument")),
                None => Ok(last),
            };
        }
        let Some(function) = self.functions.get(name) else {
            return self.fault(format!("function {name:?} not defined"));
        };
        let arguments = self.arguments(operands, piped, dot)?;
        function(&arguments).map_err(|error| TemplateError::new(self.line, format!("{name}: {error}")))
    }

    fn variable(&self, name: &str) -> Result<Value, TemplateError> {
        match self.variables.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.fault(format!("undefined variable \"${name}\"")),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        Ok(match operand {
            Operand::Dot => dot.clone(),
            Operand::Nil => Value::Nil,
            Operand::Bool(truth) => Value::Bool(*truth),
            Operand::Int(number) => Value::Int(*number),
            Operand::Float(number) => Value::Float(*number),
            Operand::String(text) => Value::string(text),
            Operand::Field(path) => self.walk(dot.clone(), path, Vec::new())?,
            Operand::Variable(name, path) => {
                let value = self.variable(name)?;
                self.walk(value, path, Vec::new())?
            }
            Operand::Nested(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                self.walk(value, path, Vec::new())?
            }
            Operand::Function(name) => self.function(name, &[], None, dot)?,
        })
    }

    /// Follows `.a.b.c`; arguments belong to the last step.
    fn walk(&self, start: Value, path: &[String], arguments: Vec<Value>) -> Result<Value, TemplateError> {
        let Some((last, before)) = path.split_last() else {
            if arguments.is_empty() {
                return Ok(start);
            }
            return self.fault("can't give argument to non-function");
        };
        let mut value = start;
        for name in before {
            value = self.step(&value, name, &[])?;
        }
        self.step(&value, last, &arguments)
    }

    fn step(&self, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
        if let Some(outcome) = methods::call(value, name, arguments) {
            return outcome.map_err(|message| TemplateError::new(self.line, format!("{name}: {message}")));
        }
        if !arguments.is_empty() {
            return self.fault(format!("{name} has arguments but cannot be invoked as function"));
        }
        match value {
            Value::Map(entries) => Ok(entries.get(name).cloned().unwrap_or_else(|| Value::from(""))),
            Value::Struct(fields) => match fields.get(name) {
                Some(value) => Ok(value.clone()),
                None => self.fault(format!("there is no field {name}")),
            },
            Value::Nil => self.fault(format!("nil has no field {name}")),
            other => self.fault(format!("can't evaluate field {name} in a {}", other.kind())),
        }
    }
}
