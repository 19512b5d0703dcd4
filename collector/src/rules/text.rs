//! Labels and annotations of rules: Go templates with Prometheus' variables and functions.

use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::template::{FunctionError, Functions, Template, TemplateError, Value};
use std::sync::{Arc, OnceLock};

/// What Prometheus puts before every template of a rule.
const VARIABLES: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A text of a rule: most are plain, and cost nothing to expand.
#[derive(Clone, Debug)]
pub struct RuleText {
    source: String,
    template: Option<Arc<Template>>,
}

impl RuleText {
    /// A text that stands for itself.
    pub fn plain(text: &str) -> Self {
        RuleText { source: text.to_owned(), template: None }
    }

    /// A template.
    ///
    /// # Errors
    /// If it cannot be parsed or calls a function that does not exist.
    pub fn template(text: &str) -> Result<Self, TemplateError> {
        if !text.contains("{{") {
            return Ok(RuleText::plain(text));
        }
        let template = Template::parse(&format!("{VARIABLES}{text}"))?;
        static KNOWN: OnceLock<Functions> = OnceLock::new();
        let known = KNOWN.get_or_init(|| functions("", || 0, |_| Err("no query is run here".into())));
        if let Some(name) = template.missing_functions(known).first() {
            return Err(TemplateError { line: 1, message: format!("function {name:?} not defined") });
        }
        Ok(RuleText { source: text.to_owned(), template: Some(Arc::new(template)) })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the text stands for itself.
    pub fn is_plain(&self) -> bool {
        self.template.is_none()
    }

    /// Whether the text is surely the same for every value: plain, or of labels only.
    pub fn is_steady(&self) -> bool {
        let rest = self.source.replace("$labels.", "").replace(".Labels.", "");
        self.template.is_none()
            || !(rest.contains(['.', '$']) || rest.contains("query") || rest.contains("now"))
    }

    /// The text for one result. What fails is said in the text, as Prometheus does.
    pub fn expand(&self, context: &TextContext<'_>) -> String {
        let Some(template) = &self.template else { return self.source.clone() };
        let map = |labels: &Labels| Value::map(labels.iter());
        let data = Value::object([
            ("Labels", map(context.labels)),
            ("ExternalLabels", map(context.external_labels)),
            ("ExternalURL", Value::from(context.external_url)),
            ("Value", Value::Float(context.value)),
        ]);
        template.render(&data, context.functions).unwrap_or_else(|error| {
            tracing::warn!(%error, template = self.source, "A template of a rule failed");
            format!("<error expanding template: {error}>")
        })
    }
}

/// What a text is expanded with.
#[derive(Debug)]
pub struct TextContext<'a> {
    /// Labels of the result.
    pub labels: &'a Labels,
    /// Value of the result.
    pub value: f64,
    /// Labels of this collector.
    pub external_labels: &'a Labels,
    /// URL of this collector.
    pub external_url: &'a str,
    /// What templates may call.
    pub functions: &'a Functions,
}

/// A result of the template function `query`.
#[derive(Clone, Debug)]
pub struct QueryRow {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// The functions of rule templates: all that Prometheus' rules have (`tmpl` is one of its consoles), those of newer
/// versions among them. `query` runs an instant query.
pub fn functions(
    external_url: &str,
    now_ms: impl Fn() -> TimestampMs + Send + Sync + 'static,
    query: impl Fn(&str) -> Result<Vec<QueryRow>, FunctionError> + Send + Sync + 'static,
) -> Functions {
    let mut functions = Functions::standard();
    functions.add("query", move |arguments| {
        let rows = query(text(arguments.first())?)?;
        Ok(Value::list(rows.into_iter().map(|row| {
            Value::object([("Labels", Value::map(row.labels.iter())), ("Value", Value::Float(row.value))])
        })))
    });
    functions.add("first", |arguments| match arguments.first() {
        Some(Value::List(items)) => {
            items.first().cloned().ok_or_else(|| "first() called on vector with no elements".into())
        }
        _ => Err("wants a query result".into()),
    });
    functions.add("value", |arguments| field(arguments.first(), "Value"));
    functions.add("label", |arguments| label(arguments.get(1), text(arguments.first())?));
    functions.add("strvalue", |arguments| label(arguments.first(), "__value__"));
    functions.add("sortByLabel", |arguments| {
        let by = text(arguments.first())?;
        let Some(Value::List(items)) = arguments.get(1) else { return Err("wants a query result".into()) };
        let mut keyed: Vec<(String, Value)> = items
            .iter()
            .map(|item| {
                let key = label(Some(item), by).ok();
                (key.as_ref().and_then(Value::as_str).unwrap_or("").to_owned(), item.clone())
            })
            .collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Value::list(keyed.into_iter().map(|(_, item)| item)))
    });
    functions.add("args", |arguments| {
        let names = (0..).map(|index: usize| format!("arg{index}"));
        Ok(Value::map(names.zip(arguments.iter().cloned())))
    });
    functions.add("title", |arguments| Ok(Value::from(title(text(arguments.first())?))));
    functions.add("urlQueryEscape", |arguments| Ok(Value::from(escape_query(text(arguments.first())?))));
    functions.add("now", move |_| Ok(Value::Float(now_ms() as f64 / 1e3)));
    functions.add("graphLink", |arguments| Ok(Value::from(link(text(arguments.first())?, 0))));
    functions.add("tableLink", |arguments| Ok(Value::from(link(text(arguments.first())?, 1))));
    let url = external_url.to_owned();
    functions.add("externalURL", move |_| Ok(Value::from(url.as_str())));
    let path = external_url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
    let path = path.trim_end_matches('/').to_owned();
    functions.add("pathPrefix", move |_| Ok(Value::from(path.as_str())));
    functions
}

/// Where a person sees an expression: `g0.tab` 1 is the table.
pub fn link(expression: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", escape_query(expression))
}

/// The first letter of every word in upper case. Alertmanager's function of this name changes the others too.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || c == '_' || !(c.is_ascii() || c.is_whitespace());
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn text(value: Option<&Value>) -> Result<&str, FunctionError> {
    value.and_then(Value::as_str).ok_or_else(|| "wants a text".into())
}

fn field(value: Option<&Value>, name: &str) -> Result<Value, FunctionError> {
    match value {
        Some(Value::Struct(fields)) => fields.get(name).cloned().ok_or_else(|| "not a query result".into()),
        _ => Err("wants a query result".into()),
    }
}

fn label(value: Option<&Value>, name: &str) -> Result<Value, FunctionError> {
    match field(value, "Labels")? {
        Value::Map(labels) => Ok(labels.get(name).cloned().unwrap_or_else(|| Value::from(""))),
        _ => Err("not a query result".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let row = || QueryRow { labels: Labels::from_pairs([("job", "b")]), value: 2.0 };
        let now = || 1_700_000_000_500;
        let functions = functions("http://c:9490/pharos", now, move |_| Ok(vec![row()]));
        let labels = Labels::from_pairs([("instance", "gpu-1")]);
        let context = TextContext {
            labels: &labels,
            value: 91.27,
            external_labels: &Labels::from_pairs([("cluster", "eu")]),
            external_url: "http://c:9490/pharos",
            functions: &functions,
        };
        assert_eq!(RuleText::template(text).unwrap().expand(&context), want);
    }

    #[test]
    fn texts_expand_as_prometheus_expands_them() {
        check("plain", "plain");
        check("{{ $labels.instance }} at {{ $value | printf \"%.1f\" }} %", "gpu-1 at 91.3 %");
        check("{{ .Labels.instance }} {{ $labels.missing }}.", "gpu-1 .");
        check("{{ humanize 1234567.0 }} {{ $externalLabels.cluster }}", "1.235M eu");
        check("{{ with query \"up\" }}{{ . | first | value }}{{ . | first | label \"job\" }}{{ end }}", "2b");
        check("{{ pathPrefix }}{{ tableLink \"a b>1\" }}", "/pharos/graph?g0.expr=a+b%3E1&g0.tab=1");
    }

    /// Expectations as promtool 2.42 prints them; `now`, `toDuration` and `urlQueryEscape` are newer.
    #[test]
    fn functions_do_as_in_prometheus() {
        check("{{ define \"x\" }}{{ .arg0 }}-{{ .arg1 }}{{ end }}{{ template \"x\" (args \"q\" 2) }}", "q-2");
        check("{{ args \"a\" 1 2.5 }} {{ args }}", "map[arg0:a arg1:1 arg2:2.5] map[]");
        check("{{ title \"hELLO wORLD it's a_b c-d 3x\" }}", "HELLO WORLD It'S A_b C-D 3x");
        check("{{ stripDomain \"10.0.0.1:9100\" }} {{ stripPort \"fe80::1\" }}", "10.0.0.1:9100 fe80::1");
        check("{{ humanizeTimestamp \"1435065584.1289\" }}", "2015-06-23 13:19:44.128 +0000 UTC");
        check("{{ humanizeTimestamp -1.5 }}", "1969-12-31 23:59:58.5 +0000 UTC");
        check("{{ humanizeTimestamp \"NaN\" }} {{ humanizeTimestamp \"+Inf\" }}", "NaN +Inf");
        check("{{ urlQueryEscape \"a b&c\" }} {{ toDuration 90 }}", "a+b%26c 1m30s");
        check("{{ now }} {{ (toTime now).Year }}", "1.7000000005e+09 2023");
    }

    #[test]
    fn every_function_of_rules_is_there() {
        let names = "and or not len index slice print printf println html js urlquery call eq ne lt le gt ge \
            query first label value strvalue args reReplaceAll safeHtml match title toUpper toLower graphLink tableLink \
            sortByLabel stripPort stripDomain humanize humanize1024 humanizeDuration humanizePercentage \
            humanizeTimestamp toTime toDuration now pathPrefix externalURL parseDuration urlQueryEscape";
        for name in names.split_whitespace() {
            assert!(RuleText::template(&format!("{{{{ {name} }}}}")).is_ok(), "{name}");
        }
    }

    #[test]
    fn texts_of_labels_alone_do_not_change_with_the_value() {
        let steady = |text: &str| RuleText::template(text).unwrap().is_steady();
        assert!(steady("plain 1.5 $"));
        assert!(steady("{{ $labels.instance }}/{{ .Labels.gpu }}"));
        for text in ["{{ $value }}", "{{ .Value }}", "{{ printf \"%v\" . }}", "{{ query \"up\" }}"] {
            assert!(!steady(text), "{text}");
        }
    }

    #[test]
    fn unknown_functions_are_found_when_the_file_is_read() {
        assert!(RuleText::template("{{ frobnicate }}").is_err());
        assert!(RuleText::template("{{ if }").is_err());
    }
}
