use super::*;
use pharos_common::clock::ManualClock;

fn surroundings() -> Surroundings {
    Surroundings { external_url: "http://am".to_owned(), clock: ManualClock::new(0), loopback_only: true }
}

fn parse_text(text: &str) -> Result<Settings, ConfigError> {
    parse(Path::new("am.yml"), text, &surroundings())
}

const BASE: &str = "route:\n  receiver: a\nreceivers:\n- name: a\n";

#[test]
fn the_built_in_configuration_is_good() {
    let settings = load(None, &surroundings()).unwrap();
    assert_eq!(settings.escalations.len(), 1);
}

#[test]
fn errors_name_file_line_column_and_key() {
    let mut wrong = Vec::new();
    let mut check = |text: &str, want: &str| {
        let error = parse_text(text).err().map(|error| error.to_string()).unwrap_or_default();
        if !error.starts_with(want) {
            wrong.push(format!("{text}\nwant {want}\ngot  {error}\n"));
        }
    };
    let with = |more: &str| format!("{BASE}{more}");
    check("", "am.yml: route: no route provided");
    check("route:\n  receiver: a\n", "am.yml:2:3: route.receiver: undefined receiver \"a\"");
    check("route:\n  group_by: [a]\n", "am.yml:1:1: route.receiver: root route must specify");
    check("routes:\n  receiver: a\n", "am.yml:1:1: routes: ");
    check("route:\n  receiver: a\n  group_wait: soon\n", "am.yml:3:15: route.group_wait: ");
    check(
        "route:\n  receiver: a\n  group_interval: 0s\nreceivers: [{name: a}]\n",
        "am.yml:3:3: route.group_interval: group_interval cannot be zero",
    );
    check(
        "route:\n  receiver: a\n  matchers: [a=b]\nreceivers: [{name: a}]\n",
        "am.yml:3:3: route.matchers: root route must not",
    );
    check("route:\n  receiver: a\n  routes:\n  - matchers: [nonsense]\n", "am.yml:4:");
    check(
        "route:\n  receiver: a\n  routes:\n  - receiver: b\nreceivers:\n- name: a\n",
        "am.yml:4:5: route.routes[0].receiver: undefined receiver \"b\"",
    );
    check(
        "route:\n  receiver: a\n  routes:\n  - match_re: {a: '('}\nreceivers:\n- name: a\n",
        "am.yml:4:5: route.routes[0].match_re: ",
    );
    check(
        "route:\n  receiver: a\n  routes:\n  - mute_time_intervals: [x]\nreceivers:\n- name: a\n",
        "am.yml:4:5: route.routes[0].mute_time_intervals: undefined time interval \"x\"",
    );
    check(
        &with("- name: a\n"),
        "am.yml:5:3: receivers[1].name: notification config name \"a\" is not unique",
    );
    check(&with("  slack_configs:\n  - channel: x\n"), "am.yml:");
    check(&with("  slack_configs:\n  - chanel: x\n"), "am.yml:6:5: receivers[0].slack_configs[0].chanel: ");
    check(
        &with("  discord_configs:\n  - webhook_url: x\n"),
        "am.yml:5:3: receivers[0].discord_configs: this version does not send by discord_configs",
    );
    check(
        &with("  webhook_configs:\n  - url: nowhere\n"),
        "am.yml:6:5: receivers[0].webhook_configs[0].url: not a URL",
    );
    check(
        &with("  webhook_configs:\n  - url: http://a\n    http_config: {oauth2: {}}\n"),
        "am.yml:7:5: receivers[0].webhook_configs[0].http_config: oauth2",
    );
    check(
        &with("  pagerduty_configs:\n  - routing_key: k\n    description: '{{ nope }}'\n"),
        "am.yml:7:5: receivers[0].pagerduty_configs[0].description: function \"nope\" not defined",
    );
    check(
        &with("inhibit_rules:\n- source_match_re: {a: '('}\n"),
        "am.yml:6:3: inhibit_rules[0].source_match_re: ",
    );
    check(&with("time_intervals:\n- name: x\n  time_intervals: [{weekdays: [someday]}]\n"), "am.yml:7:");
    check(
        &with("escalations:\n- name: e\n  tiers:\n  - receiver: x\n"),
        "am.yml:8:5: escalations[0].tiers[0].receiver: undefined receiver \"x\"",
    );
    check(
        &with(
            "escalations:\n- name: e\n  tiers:\n  - {receiver: a, after: 5m}\n  - receiver: a\n    after: 1m\n",
        ),
        "am.yml:10:5: escalations[0].tiers[1].after: a tier cannot come before",
    );
    check(&with("escalations:\n- name: e\n  stop_on: [bored]\n  tiers: []\n"), "am.yml:7:");
    let action = "remediations:\n- name: r\n  match: [a=b]\n  action:\n    ";
    check(
        &with(&format!("{action}kubernetes: {{delete_pod: {{}}}}\n")),
        "am.yml:9:5: remediations[0].action.kubernetes: kubernetes actions are not in this version",
    );
    check(&with(&format!("{action}exec: {{command: [fix]}}\n")), "am.yml:");
    check(
        &with(&format!("{action}exec: {{command: [/bin/true]}}\n  limits: {{max_concurrent: 0}}\n")),
        "am.yml:10:",
    );
    check("route: [\n", "am.yml:");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_with_nothing_behind_them_and_plain_scalars_are_read_as_go_reads_them() {
    let text = "global:\ntemplates:\nroute:\n  receiver: a\n  group_by: alertname\n  routes:\n  - match: {gpu: 3, on: true}\n    routes:\n\
                receivers:\n- name: a\n  webhook_configs:\n  slack_configs:\n  - &s\n    api_url: http://x\n    channel: 12345\n    title_link:\n  - <<: *s\n    channel: b\n\
                inhibit_rules:\nescalations:\nremediations:\n";
    let settings = parse_text(text).unwrap();
    assert_eq!(settings.receivers["a"].integrations.len(), 2);
    let shown: serde_json::Value = files::parse(Path::new("shown"), &settings.original).unwrap();
    assert_eq!(shown["receivers"][0]["slack_configs"][1]["channel"], "b");
}

#[test]
fn a_mode_that_acts_needs_a_loopback_listener() {
    let text = format!(
        "{BASE}remediations:\n- name: r\n  match: [a=b]\n  mode: auto\n  action: {{exec: {{command: [/bin/true]}}}}\n"
    );
    assert!(parse_text(&text).is_ok());
    let open = Surroundings { loopback_only: false, ..surroundings() };
    let error = parse(Path::new("am.yml"), &text, &open).unwrap_err().to_string();
    assert!(error.starts_with("am.yml:8:3: remediations[0].mode: "), "{error}");
}

#[test]
fn a_full_configuration_of_alertmanager_is_understood() {
    let settings = parse_text(include_str!("tests/full.yml")).unwrap();
    assert_eq!(settings.receivers.len(), 4);
    assert_eq!(settings.resolve_timeout_ms, 600_000);
    assert!(!settings.original.contains("hunter2"), "{}", settings.original);
}
