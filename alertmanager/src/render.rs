//! Templates of notifications: the shared engine with Alertmanager's data and default texts.

use crate::alert::label_map;
use crate::notify::notice::Notice;
use chrono::{DateTime, Utc};
use chrono_tz::{OffsetName, Tz};
use pharos_common::clock::SharedClock;
use pharos_common::labels::Labels;
use pharos_common::template::{Escaping, Functions, Library, Template, TemplateError, TimeValue, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Alertmanager's named templates in our words.
const DEFAULT_TEMPLATES: &str = include_str!("templates/default.tmpl");

/// Renders texts of notifications.
#[derive(Debug)]
pub(crate) struct Renderer {
    library: Library,
    functions: Functions,
    external_url: String,
}

/// A parsed text.
#[derive(Clone, Debug)]
pub(crate) struct Text(Template);

impl Renderer {
    pub(crate) fn new(external_url: String, clock: SharedClock) -> Self {
        let mut library = Library::default();
        if let Err(error) = library.add(DEFAULT_TEMPLATES) {
            // A test parses them; this cannot happen in a built program.
            tracing::error!(%error, "The default templates are broken");
        }
        Renderer { library, functions: functions(clock), external_url }
    }

    /// Adds the definitions of a template file.
    pub(crate) fn add_templates(&mut self, text: &str) -> Result<(), TemplateError> {
        self.library.add(text)
    }

    /// Parses a text and checks that everything it calls exists.
    pub(crate) fn text(&self, text: &str) -> Result<Text, String> {
        let template = Template::parse(text).map_err(|error| error.to_string())?;
        if let Some(name) = template.missing_functions(&self.functions).first() {
            return Err(format!("function {name:?} not defined"));
        }
        if let Some(name) = template.missing_templates(&self.library).first() {
            return Err(format!("template {name:?} not defined"));
        }
        Ok(Text(template))
    }

    pub(crate) fn render(&self, text: &Text, data: &Value) -> Result<String, TemplateError> {
        text.0.render_with(data, &self.functions, &self.library, Escaping::None)
    }

    pub(crate) fn render_html(&self, text: &Text, data: &Value) -> Result<String, TemplateError> {
        text.0.render_with(data, &self.functions, &self.library, Escaping::Html)
    }

    /// The data of a notice as templates see it.
    pub(crate) fn data(&self, notice: &Notice) -> Value {
        let alerts = notice.alerts.iter().map(|item| {
            let alert = &item.alert;
            let ends_at = if item.resolved { alert.ends_at_ms } else { 0 };
            Value::object([
                ("Status", Value::from(item.status())),
                ("Labels", labels(&alert.labels)),
                ("Annotations", Value::map(alert.annotations.clone())),
                ("StartsAt", Value::time_ms(alert.starts_at_ms)),
                ("EndsAt", Value::time_ms(ends_at)),
                ("GeneratorURL", Value::from(alert.generator_url.as_str())),
                ("Fingerprint", Value::from(alert.fingerprint().to_string())),
            ])
        });
        let tier = notice.tier.as_ref();
        Value::object([
            ("Receiver", Value::from(notice.receiver.as_str())),
            ("Status", Value::from(notice.status())),
            ("Alerts", Value::list(alerts)),
            ("GroupLabels", labels(&notice.group_labels)),
            ("CommonLabels", labels(&notice.common_labels())),
            ("CommonAnnotations", Value::map(notice.common_annotations())),
            ("ExternalURL", Value::from(self.external_url.as_str())),
            ("NotificationReason", Value::from(notice.reason)),
            ("Escalation", Value::from(tier.map_or("", |tier| tier.escalation.as_str()))),
            ("Tier", Value::Int(tier.map_or(0, |tier| tier.tier as i64 + 1))),
            ("AcknowledgeURL", Value::from(tier.map_or("", |tier| tier.acknowledge_url.as_str()))),
        ])
    }

    pub(crate) fn external_url(&self) -> &str {
        &self.external_url
    }
}

/// Runs what may compute for a while, so that the thread's other tasks go on elsewhere.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let many =
        Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    // A runtime of one thread has nowhere to go.
    if many { tokio::task::block_in_place(work) } else { work() }
}

fn labels(labels: &Labels) -> Value {
    Value::map(label_map(labels))
}

/// A map of texts with every value rendered.
pub(crate) fn render_map(
    renderer: &Renderer,
    texts: &BTreeMap<String, Text>,
    data: &Value,
) -> Result<BTreeMap<String, String>, TemplateError> {
    texts.iter().map(|(name, text)| Ok((name.clone(), renderer.render(text, data)?))).collect()
}

fn functions(clock: SharedClock) -> Functions {
    let mut functions = Functions::standard();
    let since_clock = Arc::clone(&clock);
    functions.add("since", move |arguments| match arguments {
        [Value::Time(time)] => {
            Ok(Value::Duration((since_clock.now_ms() - time.time.timestamp_millis()) * 1_000_000))
        }
        _ => Err("wants a time".into()),
    });
    functions.add("now", move |_| Ok(Value::time_ms(clock.now_ms())));
    functions.add("tz", |arguments| match arguments {
        [Value::String(name), Value::Time(time)] => {
            let zone: Tz = name.parse().map_err(|_| format!("unknown time zone {name:?}"))?;
            let utc: DateTime<Utc> = time.time.to_utc();
            let local = utc.with_timezone(&zone);
            let abbreviation = local.offset().abbreviation().unwrap_or("UTC");
            Ok(Value::Time(TimeValue { time: local.fixed_offset(), zone: Arc::from(abbreviation) }))
        }
        _ => Err("wants a zone and a time".into()),
    });
    functions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::notice::tests::notice;
    use pharos_common::clock::ManualClock;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let renderer = Renderer::new("http://am:9493".to_owned(), ManualClock::new(3_723_000));
        let text = renderer.text(text).unwrap();
        assert_eq!(renderer.render(&text, &renderer.data(&notice())).unwrap(), want);
    }

    #[test]
    fn default_texts_are_those_people_know() {
        check("{{ template \"slack.default.title\" . }}", "[FIRING:1] GpuHot (3 n1 critical)");
        check("{{ template \"pagerduty.default.description\" . }}", "[FIRING:1] GpuHot (3 n1 critical)");
        check("{{ template \"slack.default.titlelink\" . }}", "http://am:9493/#/alerts?receiver=team");
        check(
            "{{ template \"pagerduty.default.instances\" .Alerts.Firing }}",
            "Labels:\n - alertname = GpuHot\n - gpu = 3\n - node = n1\n - severity = critical\nAnnotations:\n - summary = GPU 3 is hot\nSource: http://collector/graph\n",
        );
    }

    #[test]
    fn functions_of_alertmanager_work() {
        check("{{ (index .Alerts 0).StartsAt | tz \"Europe/Paris\" | date \"15:04 MST\" }}", "01:00 CET");
        check("{{ (index .Alerts 0).StartsAt | since | humanizeDuration }}", "1h 2m 3s");
        check("{{ .CommonAnnotations.summary | toUpper }}", "GPU 3 IS HOT");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_long_computation_leaves_the_worker_to_others() {
        let (sender, receiver) = std::sync::mpsc::channel();
        // On the only worker: what it spawns runs although it does not give way.
        let got = tokio::spawn(async move {
            tokio::spawn(async move { sender.send("ran") });
            aside(|| receiver.recv())
        });
        assert_eq!(got.await.unwrap(), Ok("ran"));
    }

    #[test]
    fn what_a_text_calls_must_exist() {
        let renderer = Renderer::new(String::new(), ManualClock::new(0));
        assert!(renderer.text("{{ nope . }}").is_err());
        assert!(renderer.text("{{ template \"nope\" . }}").is_err());
        assert!(renderer.text("{{ if }}").is_err());
    }
}
