//! API v2 as `amtool`, Grafana and Prometheus use it.

use crate::support::{Alertmanager, Service};
use serde_json::{Value, json};

const NOBODY: &str = "route: {receiver: nobody, group_by: [alertname]}\nreceivers:\n- name: nobody\n";

#[tokio::test]
async fn alerts_are_taken_merged_filtered_and_shown() {
    let am = Alertmanager::start(NOBODY).await;
    let start = am.time(-60);
    am.post_ok("/api/v2/alerts", &json!([{"labels": {"alertname": "A", "node": "n1", "empty": ""}, "startsAt": start, "generatorURL": "http://x"}])).await;
    am.seconds(60);
    // A resend without a start keeps the first one.
    am.post_ok(
        "/api/v2/alerts",
        &json!([{"labels": {"alertname": "A", "node": "n1"}, "annotations": {"summary": "s"}}]),
    )
    .await;
    let alerts = am.get("/api/v2/alerts").await;
    assert_eq!(
        alerts,
        json!([{
            "labels": {"alertname": "A", "node": "n1"},
            "annotations": {"summary": "s"},
            "startsAt": start,
            "endsAt": am.time(300),
            "updatedAt": am.time(0),
            "generatorURL": "",
            "fingerprint": alerts[0]["fingerprint"],
            "receivers": [{"name": "nobody"}],
            "status": {"state": "active", "silencedBy": [], "inhibitedBy": [], "mutedBy": []},
        }])
    );
    for (query, count) in [
        ("filter=node%3D%22n1%22", 1),
        ("filter=node%3Dn2", 0),
        ("filter=node%3D~n.%2B&filter=alertname%21%3DB", 1),
        ("receiver=nob.*", 1),
        ("receiver=other", 0),
        ("active=false", 0),
    ] {
        assert_eq!(
            am.get(&format!("/api/v2/alerts?{query}")).await.as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    let groups = am.get("/api/v2/alerts/groups").await;
    assert_eq!(
        (&groups[0]["labels"], &groups[0]["receiver"]),
        (&json!({"alertname": "A"}), &json!({"name": "nobody"}))
    );
    assert_eq!(groups[0]["alerts"][0]["fingerprint"], alerts[0]["fingerprint"]);
}

#[tokio::test]
async fn bad_requests_are_refused_and_the_good_part_is_kept() {
    let am = Alertmanager::start(NOBODY).await;
    let mixed = json!([{"labels": {}}, {"labels": {"alertname": "Good"}}]);
    let (status, answer) = am.post("/api/v2/alerts", &mixed).await;
    assert_eq!((status, answer), (400, json!("at least one label pair required")));
    assert_eq!(am.get("/api/v2/alerts").await.as_array().unwrap().len(), 1);
    for (path, body, want) in [
        ("/api/v2/alerts", json!({"labels": {}}), 400),
        ("/api/v2/alerts", json!([{"labels": {"a": "b"}, "startsAt": "yesterday"}]), 400),
        ("/api/v2/silences", json!({}), 400),
        ("/api/v2/escalations/0000000000000001/acknowledge", json!({"by": "me"}), 404),
        ("/api/v2/escalations/zz/acknowledge", json!({"by": "me"}), 400),
        ("/api/v2/escalations/0000000000000001/acknowledge", json!({"by": " "}), 400),
        ("/api/v2/escalations/0000000000000001/acknowledge", json!({"by": "me", "expires_in": "soon"}), 400),
        ("/api/v2/remediations/nope/approve", json!({"by": "me"}), 404),
    ] {
        assert_eq!(am.post(path, &body).await.0, want, "{path} {body}");
    }
    for path in [
        "/api/v2/alerts?filter=x",
        "/api/v2/alerts?active=perhaps",
        "/api/v2/alerts?receiver=(",
        "/api/v2/remediations?state=odd",
    ] {
        assert_eq!(am.answer(am.http.get(format!("{}{path}", am.url))).await.0, 400, "{path}");
    }
    let cross =
        am.http.post(format!("{}/api/v2/silences", am.url)).header("sec-fetch-site", "cross-site").body("{}");
    assert_eq!(am.answer(cross).await.0, 403);
}

#[tokio::test]
async fn silences_are_created_changed_listed_and_expired() {
    let am = Alertmanager::start(NOBODY).await;
    let id = am.silence("alertname", "A", 60).await;
    let shown = am.get(&format!("/api/v2/silence/{id}")).await;
    assert_eq!(shown["status"]["state"], "active");
    assert_eq!(
        shown["matchers"],
        json!([{"name": "alertname", "value": "A", "isRegex": false, "isEqual": true}])
    );
    let mut longer = json!({
        "id": id, "matchers": shown["matchers"], "startsAt": shown["startsAt"], "endsAt": am.time(7_200),
        "createdBy": "me", "comment": "longer",
    });
    assert_eq!(am.post_ok("/api/v2/silences", &longer).await["silenceID"], json!(id));
    longer["matchers"][0]["value"] = json!("B");
    let other = am.post_ok("/api/v2/silences", &longer).await["silenceID"].clone();
    assert_ne!(other, json!(id));
    let states = |list: Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| one["status"]["state"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(states(am.get("/api/v2/silences").await), ["active", "expired"]);
    assert_eq!(states(am.get("/api/v2/silences?expired=false").await), ["active"]);
    assert_eq!(states(am.get("/api/v2/silences?filter=alertname%3DB").await), ["active"]);
    let path = format!("/api/v2/silence/{}", other.as_str().unwrap());
    assert_eq!(am.delete(&path).await.0, 200);
    assert_eq!(am.delete(&path).await.0, 500);
    assert_eq!(am.delete("/api/v2/silence/5f1a8f3c-0000-0000-0000-000000000000").await.0, 404);
    let unknown = json!({
        "id": "nope", "matchers": shown["matchers"], "startsAt": am.time(0), "endsAt": am.time(60), "createdBy": "me", "comment": "c",
    });
    assert_eq!(am.post("/api/v2/silences", &unknown).await.0, 404);
    let past = json!({
        "matchers": shown["matchers"], "startsAt": am.time(-60), "endsAt": am.time(-30), "createdBy": "me", "comment": "c",
    });
    assert_eq!(am.post("/api/v2/silences", &past).await.0, 400);
    // After the retention time they are forgotten.
    am.seconds(6 * 86_400);
    am.wait_for("/api/v2/silences", |list| list == &json!([])).await;
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let mut hook = Service::start().await;
    let config = format!(
        "route: {{receiver: hook, group_by: [alertname]}}\nreceivers:\n- name: hook\n  webhook_configs: [{{url: '{}'}}]\n- name: late\n  webhook_configs: [{{url: '{}/late'}}]\n\
         escalations:\n- name: e\n  match: [alertname=A]\n  tiers: [{{receiver: late, after: 10m}}]\n",
        hook.url, hook.url
    );
    let mut am = Alertmanager::start(&config).await;
    am.fire(&[json!({"alertname": "A"})]).await;
    am.next(&mut hook).await;
    let id = am.silence("alertname", "B", 60).await;
    let fingerprint = am.fingerprint().await;
    let path = format!("/api/v2/escalations/{fingerprint}/acknowledge");
    am.post_ok(&path, &json!({"by": "ada"})).await;
    am.minutes(4);
    am.restart().await;
    am.wait_for("/-/ready", |text| text == &json!("Alertmanager is Ready.\n")).await;
    assert_eq!(am.get(&format!("/api/v2/silence/{id}")).await["status"]["state"], "active");
    assert_eq!(am.get("/api/v2/escalations").await[0]["acknowledgement"]["by"], "ada");
    // The alert is known and nobody is told twice.
    assert_eq!(am.fingerprint().await, fingerprint);
    assert_eq!(am.delete(&path).await.0, 200);
    am.wait_for("/api/v2/escalations", |list| list[0]["state"] == "escalating").await;
    am.settle().await;
    assert!(hook.is_quiet());
    am.minutes(10);
    assert_eq!(am.next(&mut hook).await.path, "/late");
}

#[tokio::test]
async fn a_reload_takes_a_good_file_and_keeps_the_old_one_over_a_bad_one() {
    let am = Alertmanager::start(NOBODY).await;
    std::fs::write(am.config_file(), "route: {receiver: other}\nreceivers:\n- name: other\n  slack_configs: [{api_url: 'http://127.0.0.1/secret'}]\nescalations: []\n").unwrap();
    assert_eq!(am.post("/-/reload", &Value::Null).await.0, 200);
    assert_eq!(am.get("/api/v2/receivers").await, json!([{"name": "other"}]));
    let original = am.get("/api/v2/status").await["config"]["original"].as_str().unwrap().to_owned();
    assert!(!original.contains("secret\"") || original.contains("<secret>"), "{original}");
    assert!(!original.contains("127.0.0.1") && !original.contains("escalations"), "{original}");
    std::fs::write(am.config_file(), "route:\n  receiver: nowhere\nreceivers: []\n").unwrap();
    let (status, answer) = am.post("/-/reload", &Value::Null).await;
    assert_eq!(status, 500);
    assert!(
        answer.as_str().unwrap().contains("am.yml:2:3: route.receiver: undefined receiver \"nowhere\""),
        "{answer}"
    );
    assert_eq!(am.get("/api/v2/receivers").await, json!([{"name": "other"}]));
    let metrics = am.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("alertmanager_config_last_reload_successful 0"));
}

#[tokio::test]
async fn the_page_shows_what_fires_first_and_the_newest_at_the_top() {
    let am = Alertmanager::start(NOBODY).await;
    for name in ["Oldest", "Older", "Newer"] {
        am.fire(&[json!({"alertname": name}), json!({"alertname": format!("{name}Too")})]).await;
        am.seconds(10);
    }
    am.silence("alertname", "Newer", 60).await;
    let page = am.get("/").await;
    let page = page.as_str().unwrap().split("<h2>").nth(1).unwrap();
    let rows: Vec<&str> = page
        .split("alertname=")
        .skip(1)
        .map(|row| row.split('<').next().unwrap().trim_end_matches("Too"))
        .collect();
    // Two that began together stand in one order, whichever it is.
    assert_eq!(rows, ["Newer", "Older", "Older", "Oldest", "Oldest", "Newer"]);
    assert_eq!(am.get("/").await.as_str().unwrap().split("<h2>").nth(1).unwrap(), page);
    assert!(page.contains("class=\"time\""));
}

#[tokio::test]
async fn what_changes_something_is_refused_to_other_sites_and_under_other_names() {
    let am = Alertmanager::start_with(NOBODY, &["--web.external-url=http://am.example/"]).await;
    let alerts = json!([{"labels": {"alertname": "A"}}]);
    let post = |path: &str, name: &str, value: &str| {
        am.answer(am.http.post(format!("{}{path}", am.url)).header(name, value).json(&alerts))
    };
    for path in ["/api/v2/alerts", "/-/reload"] {
        assert_eq!(post(path, "origin", "http://evil.example").await.0, 403, "{path}");
        let (status, message) = post(path, "host", "evil.example:9493").await;
        assert_eq!(status, 403, "{path}");
        assert!(message.as_str().unwrap().contains("--web.external-url"), "{message}");
        for host in ["localhost:9493", "127.0.0.1:9493", "am.example"] {
            assert_eq!(post(path, "host", host).await.0, 200, "{path} {host}");
        }
    }
    // Reading is for everybody who reaches it.
    let request = am.http.get(format!("{}/api/v2/alerts", am.url)).header("host", "evil.example");
    assert_eq!(am.answer(request).await.0, 200);
}

#[tokio::test]
async fn a_prefix_moves_every_path() {
    let am = Alertmanager::start_with(NOBODY, &["--web.external-url=http://am.example/pharos/"]).await;
    for path in ["/pharos/-/healthy", "/pharos/api/v2/status", "/pharos/metrics", "/pharos/"] {
        assert_eq!(am.answer(am.http.get(format!("{}{path}", am.url))).await.0, 200, "{path}");
    }
    assert_eq!(am.answer(am.http.get(format!("{}/api/v2/status", am.url))).await.0, 404);
}
