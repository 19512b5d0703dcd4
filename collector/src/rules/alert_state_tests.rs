use super::*;

const HOLDS: Holds = Holds { hold_ms: 5_000, keep_firing_ms: 0 };

fn labels(instance: &str) -> Labels {
    Labels::from_pairs([("alertname", "Hot"), ("instance", instance)])
}

fn breach(instance: &str, value: f64) -> Breach {
    Breach { found: Labels::empty(), labels: labels(instance), annotations: Vec::new(), value }
}

/// One line a moment: the time, whether the expression is true, and the phases then (`-` for none).
#[track_caller]
fn timetable(holds: Holds, moments: &[(i64, bool, &str)]) {
    let mut alerts = ActiveAlerts::default();
    for &(at_ms, is_true, want) in moments {
        let found = if is_true { vec![breach("a", 1.0)] } else { Vec::new() };
        alerts.judge(1, found, at_ms, at_ms, holds).unwrap();
        let got = alerts.iter().next().map_or("-", |alert| alert.phase.as_str());
        assert_eq!(got, want, "at {at_ms} ms");
    }
}

#[test]
fn an_alert_fires_when_it_was_active_for_long_enough() {
    timetable(
        HOLDS,
        &[(0, false, "-"), (1_000, true, "pending"), (5_999, true, "pending"), (6_000, true, "firing")],
    );
    timetable(
        HOLDS,
        &[(0, true, "pending"), (4_000, false, "-"), (5_000, true, "pending"), (9_999, true, "pending")],
    );
    timetable(Holds::default(), &[(0, true, "firing"), (1, false, "inactive"), (2, true, "firing")]);
}

#[test]
fn keep_firing_for_bridges_gaps() {
    let holds = Holds { hold_ms: 0, keep_firing_ms: 3_000 };
    timetable(
        holds,
        &[
            (0, true, "firing"),
            (1_000, false, "firing"),
            (3_999, false, "firing"),
            (4_000, false, "inactive"),
        ],
    );
    timetable(
        holds,
        &[(0, true, "firing"), (1_000, false, "firing"), (2_000, true, "firing"), (4_500, false, "firing")],
    );
}

#[test]
fn a_resolved_alert_is_forgotten_after_fifteen_minutes() {
    let end = 1_000 + RESOLVED_RETENTION_MS;
    timetable(
        Holds::default(),
        &[(0, true, "firing"), (1_000, false, "inactive"), (end, false, "inactive"), (end + 1, false, "-")],
    );
}

#[test]
fn alerts_are_sent_at_once_then_every_minute_and_once_resolved() {
    let mut alerts = ActiveAlerts::default();
    let sent = |alerts: &mut ActiveAlerts, at_ms| alerts.take_due(at_ms, usize::MAX).len();
    alerts.judge(1, vec![breach("a", 1.0)], 0, 0, HOLDS).unwrap();
    assert_eq!(sent(&mut alerts, 0), 0, "pending alerts are nobody's business");
    alerts.judge(1, vec![breach("a", 1.0)], 5_000, 5_000, HOLDS).unwrap();
    assert_eq!(sent(&mut alerts, 5_000), 1);
    assert_eq!(sent(&mut alerts, 64_999), 0);
    assert_eq!(sent(&mut alerts, 65_000), 1);
    alerts.judge(1, Vec::new(), 66_000, 66_000, HOLDS).unwrap();
    let due = alerts.take_due(66_000, usize::MAX);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].resolved_at_ms, Some(66_000));
    assert_eq!(sent(&mut alerts, 67_000), 0);
    assert_eq!(sent(&mut alerts, 126_000), 1);
}

#[test]
fn subjects_do_not_touch_each_other() {
    let mut alerts = ActiveAlerts::default();
    alerts.judge(1, vec![breach("a", 1.0)], 0, 0, Holds::default()).unwrap();
    alerts.judge(2, vec![breach("b", 1.0)], 0, 0, Holds::default()).unwrap();
    alerts.judge(2, Vec::new(), 1, 1, Holds::default()).unwrap();
    assert_eq!(alerts.active_count(), 1);
    let twice = alerts.judge(2, vec![breach("a", 1.0)], 2, 2, Holds::default());
    assert_eq!(twice.unwrap_err(), DuplicateAlert(labels("a")));
    let twice = alerts.judge(3, vec![breach("c", 1.0), breach("c", 2.0)], 2, 2, Holds::default());
    assert!(twice.is_err());
    assert_eq!(alerts.active_count(), 1);
}

#[test]
fn deadlines_tell_when_to_look_again_without_a_sample() {
    let holds = Holds { hold_ms: 5_000, keep_firing_ms: 2_000 };
    let mut alerts = ActiveAlerts::default();
    alerts.judge(1, vec![breach("a", 1.0)], 1_000, 1_200, holds).unwrap();
    assert_eq!(alerts.next_deadline_ms(1, holds), Some(6_000));
    alerts.judge(1, vec![breach("a", 1.0)], 6_000, 6_000, holds).unwrap();
    assert_eq!(alerts.next_deadline_ms(1, holds), None);
    alerts.judge(1, Vec::new(), 7_000, 7_000, holds).unwrap();
    assert_eq!(alerts.next_deadline_ms(1, holds), Some(9_000));
}

#[test]
fn a_restart_keeps_the_for_timers() {
    let mut alerts = ActiveAlerts::default();
    // Was firing: goes on firing at once, since when it was active before.
    alerts.remember(labels("a"), Remembered { active_at_ms: 0, seen_at_ms: 5_000, is_shared: false });
    // Was pending for 2 s, then nobody looked for 8 s: 3 s are left.
    alerts.remember(labels("b"), Remembered { active_at_ms: 0, seen_at_ms: 2_000, is_shared: false });
    let found = vec![breach("a", 1.0), breach("b", 1.0)];
    alerts.judge(1, found, 10_000, 10_000, HOLDS).unwrap();
    let phase = |alerts: &ActiveAlerts, instance| alerts.by_labels[&labels(instance)].phase;
    assert_eq!(phase(&alerts, "a"), Phase::Firing);
    assert_eq!(alerts.by_labels[&labels("a")].active_at_ms, 0);
    assert_eq!(phase(&alerts, "b"), Phase::Pending);
    assert_eq!(alerts.next_deadline_ms(1, HOLDS), Some(13_000));
}

#[test]
fn an_alert_whose_data_is_missing_stays_as_it_is_for_a_day() {
    let mut alerts = ActiveAlerts::default();
    let phases = |alerts: &ActiveAlerts| alerts.active().map(|alert| alert.phase).collect::<Vec<_>>();
    let missing = |alerts: &mut ActiveAlerts, at_ms| {
        alerts.judge_unless_missing(1, Vec::new(), at_ms, at_ms, HOLDS, |_| true).unwrap()
    };
    alerts.judge(1, vec![breach("a", 1.0)], 0, 0, HOLDS).unwrap();
    assert!(missing(&mut alerts, 6_000).is_empty());
    assert_eq!(phases(&alerts), [Phase::Pending], "what nobody saw does not fire");
    alerts.judge(1, vec![breach("a", 1.0)], 7_000, 7_000, HOLDS).unwrap();
    assert_eq!(phases(&alerts), [Phase::Firing]);
    assert!(missing(&mut alerts, 10_000).is_empty());
    assert_eq!(alerts.next_deadline_ms(1, HOLDS), Some(10_000 + MISSING_KEPT_MS_MAX));
    assert_eq!(phases(&alerts), [Phase::Firing]);
    missing(&mut alerts, 10_000 + MISSING_KEPT_MS_MAX);
    assert_eq!(phases(&alerts), []);
}

#[test]
fn what_fired_before_a_restart_and_never_came_back_is_sent_as_resolved() {
    let mut alerts = ActiveAlerts::default();
    alerts.remember(labels("fired"), Remembered { active_at_ms: 0, seen_at_ms: 9_000, is_shared: false });
    alerts
        .remember(labels("pending"), Remembered { active_at_ms: 8_000, seen_at_ms: 9_000, is_shared: false });
    let ended = alerts.forget_remembered(20_000, HOLDS, |_| false);
    assert_eq!(ended, [labels("fired")]);
    let due = alerts.take_due(20_000, usize::MAX);
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].phase, due[0].resolved_at_ms), (Phase::Resolved, Some(20_000)));
    assert_eq!(due[0].fired_at_ms, Some(5_000));
    assert_eq!(alerts.take_due(20_000 + RESOLVED_RETENTION_MS, usize::MAX).len(), 1);
    assert!(alerts.take_due(20_001 + RESOLVED_RETENTION_MS, usize::MAX).is_empty() && alerts.is_empty());
}

#[test]
fn whoever_finds_an_alert_of_nobody_takes_it_over() {
    let mut alerts = ActiveAlerts::default();
    alerts.remember(labels("a"), Remembered { active_at_ms: 0, seen_at_ms: 9_000, is_shared: false });
    alerts.keep_remembered(20_000, HOLDS, |index| u64::MAX - index, Labels::clone);
    assert_eq!(alerts.active_count(), 1);
    assert!(alerts.has_orphans());
    let changes = alerts.judge(3, vec![breach("a", 1.0)], 21_000, 21_000, HOLDS).unwrap();
    assert!(changes.is_empty() && !alerts.has_orphans() && alerts.has_subject(3));
    alerts.judge(3, Vec::new(), 22_000, 22_000, HOLDS).unwrap();
    assert_eq!(alerts.active_count(), 0);
}

#[test]
fn an_alert_that_goes_on_is_touched_and_nothing_else() {
    let mut alerts = ActiveAlerts::default();
    assert!(!alerts.touch(1, 1.0, true, 0, HOLDS), "there is none");
    alerts.judge(1, vec![breach("a", 1.0)], 0, 0, HOLDS).unwrap();
    assert!(alerts.touch(1, 2.0, true, 4_999, HOLDS));
    assert!(!alerts.touch(1, 3.0, false, 4_999, HOLDS), "its labels may change with the value");
    assert!(!alerts.touch(1, 2.0, true, 5_000, HOLDS), "it is to fire");
    alerts.refresh_texts(|_, value| vec![("at".into(), value.to_string())]);
    assert_eq!(alerts.iter().next().unwrap().annotations, [("at".to_owned(), "2".to_owned())]);
}

#[test]
fn what_finds_no_room_stays_due_and_news_go_before_reminders() {
    let mut alerts = ActiveAlerts::default();
    let judge = |alerts: &mut ActiveAlerts, subjects: std::ops::Range<u64>, at_ms| {
        for subject in subjects {
            let labels = Labels::from_pairs([("alertname", "Hot"), ("instance", &format!("n{subject}"))]);
            let breach = Breach { found: Labels::empty(), labels, annotations: Vec::new(), value: 1.0 };
            alerts.judge(subject, vec![breach], at_ms, at_ms, Holds::default()).unwrap();
        }
    };
    let take = |alerts: &mut ActiveAlerts, at_ms, room| -> Vec<String> {
        let due = alerts.take_due(at_ms, room).into_iter();
        due.map(|alert| alert.labels.get("instance").unwrap().to_owned()).collect()
    };
    judge(&mut alerts, 0..3, 1_000);
    assert_eq!(take(&mut alerts, 1_000, 0), [""; 0]);
    let first = take(&mut alerts, 1_000, 2);
    assert_eq!(first.len(), 2);
    let last = take(&mut alerts, 2_000, 2);
    assert_eq!(last.len(), 1, "the one that found no room, and not the others again");
    assert!(!first.contains(&last[0]));
    judge(&mut alerts, 3..4, 100_000);
    assert_eq!(alerts.take_untold(100_000, 9).len(), 1);
    judge(&mut alerts, 4..5, 100_000);
    assert_eq!(take(&mut alerts, 100_000, 1), ["n4"]);
    assert_eq!(take(&mut alerts, 100_000, 2), first, "told the longest ago");
    assert_eq!(take(&mut alerts, 100_000, 9), last);
}
