//! Log lines on stderr: logfmt as Prometheus writes it, or JSON.
//!
//! `time=2026-01-02T03:04:05.678Z level=INFO source=module msg="Listening on" address=127.0.0.1:9490`

use clap::ValueEnum;
use std::fmt;
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The least severe lines to print (`--log.level`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything that helps to find a fault.
    Debug,
    /// What an operator wants to know in normal running.
    #[default]
    Info,
    /// What is wrong but worked around.
    Warn,
    /// What failed.
    Error,
}

/// How lines look (`--log.format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Sends `tracing` events to stderr. The variable `PHAROS_LOG` overrides the level with a filter of
/// `tracing-subscriber`'s syntax (e.g. `pharos_tsdb=debug`). Does nothing when logging is set up already.
pub fn init(level: LogLevel, format: LogFormat) {
    let default = match level {
        LogLevel::Debug => "debug,h2=info,hyper=info,tower=info,sled=info,reqwest=info",
        LogLevel::Info => "info,sled=warn",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let filter = std::env::var("PHAROS_LOG")
        .ok()
        .and_then(|text| tracing_subscriber::EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| tracing_subscriber::EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Logfmt => {
            builder.with_ansi(std::io::stderr().is_terminal()).event_format(Logfmt).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second program in the same process finds logging set up, which is what it wanted.
    drop(outcome);
}

struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let metadata = event.metadata();
        write!(writer, "time={now} level={} source={}", metadata.level(), metadata.target())?;
        let mut fields = Fields { message: String::new(), rest: String::new() };
        event.record(&mut fields);
        write!(writer, " msg=")?;
        write_value(&mut writer, &fields.message)?;
        writer.write_str(&fields.rest)?;
        writer.write_char('\n')
    }
}

struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.rest.push(' ');
            self.rest.push_str(field.name());
            self.rest.push('=');
            // Writing to a String cannot fail.
            let _ = write_value(&mut self.rest, value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
}

fn write_value(out: &mut impl fmt::Write, value: &str) -> fmt::Result {
    let plain = !value.is_empty()
        && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
    if plain { out.write_str(value) } else { write!(out, "{}", crate::labels::Quoted(value)) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_quoted_only_when_they_need_it() {
        let mut out = String::new();
        super::write_value(&mut out, "a:1").unwrap();
        out.push(' ');
        super::write_value(&mut out, "two words").unwrap();
        out.push(' ');
        super::write_value(&mut out, "").unwrap();
        assert_eq!(out, r#"a:1 "two words" """#);
    }
}
