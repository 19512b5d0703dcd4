//! Debian's `amtool`, where it is installed.

use crate::support::Program;
use std::process::Command;

const CONFIG: &str = "
global: {slack_api_url: 'http://127.0.0.1:1/secret'}
route:
  receiver: hook
  routes: [{matchers: ['severity=\"critical\"'], receiver: slack}]
receivers:
- name: hook
  webhook_configs: [{url: 'http://127.0.0.1:1/secret'}]
- name: slack
  slack_configs: [{channel: '#a'}]
escalations:
- name: e
  match: [severity=critical]
  tiers: [{receiver: slack, after: 5m}]
";

fn amtool(program: &Program, arguments: &[&str]) -> String {
    let url = format!("--alertmanager.url={}", program.url);
    let output = Command::new("amtool").arg(url).args(arguments).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{error}");
    out.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn amtool_works_unchanged() {
    if Command::new("amtool").arg("--version").output().is_err() {
        eprintln!("skipped: amtool is not installed (Debian package prometheus-alertmanager)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path(), CONFIG).await;
    amtool(
        &program,
        &["alert", "add", "GpuLost", "node=n1", "severity=critical", "--annotation=summary=gone"],
    );
    let shown = amtool(&program, &["alert", "query", "severity=critical"]);
    assert!(shown.contains("GpuLost") && shown.contains("gone") && shown.contains("active"), "{shown}");
    let id = amtool(&program, &["silence", "add", "alertname=GpuLost", "--comment=test", "--author=me"]);
    assert!(amtool(&program, &["silence", "query"]).contains(&id));
    assert!(!amtool(&program, &["alert", "query"]).contains("GpuLost"));
    amtool(&program, &["silence", "expire", &id]);
    assert!(!amtool(&program, &["silence", "query"]).contains(&id));
    assert!(amtool(&program, &["silence", "query", "--expired"]).contains(&id));
    let config = amtool(&program, &["config", "show"]);
    assert!(
        config.contains("receiver: hook") && !config.contains("escalations") && !config.contains("/secret\n"),
        "{config}"
    );
    assert_eq!(amtool(&program, &["config", "routes", "test", "severity=critical"]), "slack");
    assert_eq!(amtool(&program, &["config", "routes", "test", "severity=info"]), "hook");
    amtool(&program, &["cluster", "show"]);
}
