use super::*;
use proptest::prelude::*;

fn alert(name: &str, status: &str) -> Value {
    Value::object([
        ("Status", Value::from(status)),
        ("Labels", Value::map([("alertname", name), ("gpu", "3"), ("host", "n1")])),
        ("Annotations", Value::map([("summary", "GPU <3> hot")])),
        ("StartsAt", Value::time_ms(1_700_000_000_123)),
    ])
}

fn data() -> Value {
    Value::object([
        ("Status", Value::from("firing")),
        ("Receiver", Value::from("team")),
        ("GroupLabels", Value::map([("alertname", "GpuHot")])),
        ("CommonLabels", Value::map([("alertname", "GpuHot"), ("gpu", "3"), ("host", "n1")])),
        ("Alerts", Value::list([alert("GpuHot", "firing"), alert("GpuHot", "resolved")])),
        ("Value", Value::Float(0.25)),
        ("Count", Value::Int(3)),
    ])
}

#[track_caller]
fn check(text: &str, want: &str) {
    let outcome = Template::parse(text).and_then(|template| template.render(&data(), &Functions::standard()));
    assert_eq!(outcome.as_deref(), Ok(want), "{text}");
}

#[track_caller]
fn refuse(text: &str, want: &str) {
    let outcome = Template::parse(text).and_then(|template| template.render(&data(), &Functions::standard()));
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(want), "{text}: {error}");
}

#[test]
fn fields_pipelines_and_functions() {
    check("plain", "plain");
    check("{{ .Status | toUpper }}", "FIRING");
    check("{{ .Alerts.Firing | len }}", "1");
    check("{{ .GroupLabels.SortedPairs.Values | join \" \" }}", "GpuHot");
    check("{{ (.CommonLabels.Remove .GroupLabels.Names).Values | join \",\" }}", "3,n1");
    check("{{ .GroupLabels.missing }}|", "|");
    check("{{ index .CommonLabels \"gpu\" }}", "3");
    check("{{ (index .Alerts 0).Labels.host }}", "n1");
    check("{{ printf \"%s-%03d-%.1f-%q\" .Status .Count .Value \"a\" }}", "firing-003-0.2-\"a\"");
    check("{{ \"a b\" | title }} {{ `raw\\n` }}", "A B raw\\n");
    check("{{ reReplaceAll \"g(.)u\" \"<$1>\" \"gpu\" }}", "<p>");
    check("{{ match \"^fir\" .Status }}{{ not true }}", "truefalse");
    check(
        "{{ eq .Status \"x\" \"firing\" }} {{ ne 1 2 }} {{ lt 1 2 }} {{ ge 1.0 2 }}",
        "true true true false",
    );
    check("{{ and 1 0 }}{{ or 0 \"x\" }}{{ and true .Status }}", "0xfiring");
    check(
        "{{ (index .Alerts 0).StartsAt.Format \"2006-01-02T15:04:05.000Z07:00 Mon\" }}",
        "2023-11-14T22:13:20.123Z Tue",
    );
    check("{{ 1.5 }} {{ 1e30 }} {{ 0x10 }} {{ 'a' }}", "1.5 1e+30 16 97");
    check("{{ .CommonLabels }}", "map[alertname:GpuHot gpu:3 host:n1]");
    check("{{ stringSlice \"a\" \"b\" | join \"-\" }}", "a-b");
}

#[test]
fn control_structures() {
    check("{{ if eq .Status \"firing\" }}on{{ else }}off{{ end }}", "on");
    check("{{ if false }}a{{ else if .Count }}b{{ else }}c{{ end }}", "b");
    check("{{ range .Alerts }}{{ .Status }};{{ end }}", "firing;resolved;");
    check(
        "{{ range $i, $a := .Alerts }}{{ $i }}{{ $a.Status }}{{ $.Receiver }} {{ end }}",
        "0firingteam 1resolvedteam ",
    );
    check(
        "{{ range $k, $v := .CommonLabels }}{{ $k }}={{ $v }},{{ end }}",
        "alertname=GpuHot,gpu=3,host=n1,",
    );
}

#[test]
fn variables_scopes_trim_marks_and_comments() {
    check("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ end }}{{ $x }}", "2");
    check("a  {{- 1 -}}  b {{/* gone */}}c{{- /* trims */ -}} d", "a1b cd");
    check("{{ with .GroupLabels }}{{ .alertname }}{{ end }}{{ with \"\" }}a{{ else }}b{{ end }}", "GpuHotb");
    check("{{ range .Alerts }}{{ if eq .Status \"resolved\" }}{{ break }}{{ end }}x{{ end }}", "x");
    check("{{ range .Alerts }}{{ if eq .Status \"firing\" }}{{ continue }}{{ end }}y{{ end }}", "y");
}

#[test]
fn templates_call_templates() {
    check("{{ define \"a\" }}<{{ . }}>{{ end }}{{ template \"a\" .Status }}", "<firing>");
    let mut library = Library::default();
    library.add("{{ define \"slack.title\" }}[{{ .Status }}]{{ end }}").unwrap();
    let template = Template::parse("{{ template \"slack.title\" . }}").unwrap();
    let text = template.render_with(&data(), &Functions::standard(), &library, Escaping::None).unwrap();
    assert_eq!(text, "[firing]");
    assert_eq!(template.missing_templates(&Library::default()), ["slack.title"]);
}

#[test]
fn html_is_escaped_unless_marked_safe() {
    let template =
        Template::parse("<b>{{ (index .Alerts 0).Annotations.summary }}</b>{{ \"<i>\" | safeHtml }}")
            .unwrap();
    let text =
        template.render_with(&data(), &Functions::standard(), &Library::default(), Escaping::Html).unwrap();
    assert_eq!(text, "<b>GPU &lt;3&gt; hot</b><i>");
}

#[test]
fn numbers_for_people() {
    check("{{ humanize 1234567.0 }} {{ humanize 0.00012 }} {{ humanize 0 }}", "1.235M 120u 0");
    check("{{ humanize1024 1048576 }} {{ humanizePercentage .Value }}", "1Mi 25%");
    check(
        "{{ humanizeDuration 90061 }} {{ humanizeDuration 0.0042 }} {{ humanizeDuration 59.5 }}",
        "1d 1h 1m 1s 4.2ms 59.5s",
    );
    check(
        "{{ printf \"%g %v %v %e\" 1000000.0 123456789.0 99999.5 12.5 }}",
        "1e+06 1.23456789e+08 99999.5 1.250000e+01",
    );
}

#[test]
fn faults_name_the_line_and_the_cause() {
    refuse("a\n{{ .Nope }}", "line 2: there is no field Nope");
    refuse("{{ nope 1 }}", "function \"nope\" not defined");
    refuse("{{ template \"x\" . }}", "\"x\" is not defined");
    refuse("{{ if true }}", "{{end}} is missing");
    refuse("{{ end }}", "unexpected {{end}}");
    refuse("{{ .Status", "unclosed action");
    refuse("{{ \"abc }}", "unterminated quoted string");
    refuse("{{ $x }}", "undefined variable");
    refuse("{{ break }}", "outside of {{range}}");
    refuse("{{ join 1 }}", "wants 2 arguments");
}

#[test]
fn what_would_run_or_grow_without_end_is_stopped() {
    refuse("{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}", "deeper than");
    refuse("{{ range 1000000 }}{{ range 1000000 }}x{{ end }}{{ end }}", "steps");
    refuse("{{ range 1000 }}{{ range 1000 }}x{{ end }}{{ end }}", "steps");
    refuse(&"{{ if true }}".repeat(1_000), "nested deeper");
    refuse(&format!("{{{{ {}1{} }}}}", "(".repeat(1_000), ")".repeat(1_000)), "nested deeper");
    refuse("{{ printf \"%999999d\" 1 }}", "width");
}

proptest! {
    #[test]
    fn any_text_is_refused_or_rendered(text in "(\\{\\{-?|-?\\}\\}|[ .$|()\"`a-z0-9]|if |range |end |else |:= |define \"a\"|.){0,40}") {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.render(&data(), &Functions::standard());
        }
    }
}
