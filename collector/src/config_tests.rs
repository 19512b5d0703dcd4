use super::*;
use pharos_common::flags::ConfigFlag;

fn options(folder: &Path, text: &str) -> Options {
    let file = folder.join("pharos.yml");
    std::fs::write(&file, text).unwrap();
    Options { config: ConfigFlag { config_file: Some(file) }, shipped_rules: false, ..Options::default() }
}

#[test]
fn a_configuration_of_prometheus_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::write(
        folder.path().join("rules/a.yml"),
        "groups:\n  - name: a\n    rules:\n      - {alert: X, expr: up == 0}\n",
    )
    .unwrap();
    let text = r#"
global:
  scrape_interval: 15s
  evaluation_interval: 5s
  external_labels: {cluster: eu}
rule_files: [rules/*.yml, other/*.yml]
alerting:
  alertmanagers:
    - path_prefix: /am
      static_configs:
        - targets: ['a:9093', 'b:9093']
scrape_configs:
  - job_name: node
    static_configs: [{targets: ['a:9100']}]
remote_write:
  - url: http://x/api/v1/write
storage:
  tsdb: {out_of_order_time_window: 30m}
"#;
    let mut options = options(folder.path(), text);
    options.alertmanager_urls.push("http://flag:9093".into());
    let loaded = load(&options).unwrap();
    assert_eq!(loaded.alertmanager_urls, ["http://flag:9093", "http://a:9093/am", "http://b:9093/am"]);
    assert_eq!(loaded.groups.len(), 1);
    assert_eq!(loaded.groups[0].interval_ms, 5_000);
    assert_eq!(loaded.external_label_set().to_string(), r#"{cluster="eu"}"#);
    assert_eq!(
        loaded.not_acted_on,
        ["scrape_configs", "remote_write", "storage.tsdb", "global.scrape_interval"]
    );
}

#[track_caller]
fn check(text: &str, want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let error = load(&options(folder.path(), text)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    let message = message.replace(&format!("{}/", folder.path().display()), "");
    assert!(message.starts_with(want), "{message}");
}

#[test]
fn faults_name_file_line_column_and_key() {
    check("global:\n  evaluation_intervall: 5s\n", "pharos.yml:2:3: global.evaluation_intervall: ");
    check("global:\n  evaluation_interval: fast\n", "pharos.yml:2:24: global.evaluation_interval: ");
    check("colour: red\n", "pharos.yml:1:1: colour: ");
    check("rule_files: [missing.yml]\n", "pharos.yml: rule_files: missing.yml: no such rule file");
    check(
        "scrape_configs:\n  - job_name: a\n  - job_name: a\n",
        "pharos.yml:3:5: scrape_configs[1].job_name: ",
    );
    check(
        "alerting:\n  alertmanagers:\n    - scheme: ftp\n",
        "pharos.yml:3:7: alerting.alertmanagers[0].scheme: ",
    );
}

#[test]
fn a_flag_that_makes_no_sense_is_named() {
    let options = Options { alertmanager_urls: vec!["localhost:9093".into()], ..Options::default() };
    let error = load(&options).unwrap_err();
    assert!(error.to_string().starts_with("--alertmanager.url: "), "{error}");
    assert_eq!(error.exit_code(), 2);
}
