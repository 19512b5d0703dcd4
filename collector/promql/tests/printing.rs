//! What is printed reads back as the same query: over queries made at random, on one line and laid out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_promql::ast::{Expr, prettify};
use pharos_promql::parse;
use proptest::prelude::*;

type Text = BoxedStrategy<String>;

fn one_of(texts: &[&'static str]) -> Text {
    prop::sample::select(texts.to_vec()).prop_map(str::to_owned).boxed()
}

fn duration() -> Text {
    one_of(&[
        "5m",
        "1h30m",
        "90",
        "1.5",
        "(1m + 30s)",
        "step() * 2",
        "min_of(1m, step())",
        "max_of(range(), 1s)",
        "2 ^ 6",
        "(5m - 30s) % 7m",
        "+5m",
        "10 / 3 * 1m",
        "(step() + 1s)",
        "-(-5m)",
    ])
}

fn offset() -> Text {
    one_of(&[
        "",
        "",
        " offset 5m",
        " offset -1h",
        " offset (5m + 1s)",
        " offset -step()",
        " offset -(2 * 10s)",
    ])
}

fn at() -> Text {
    one_of(&["", "", "", " @ 1600000000", " @ -1.5", " @ start()", " @ end()", " @ -0x10", " @ 1_000.25"])
}

/// Matchers in the order in which they are printed.
fn matchers() -> Text {
    let chosen = prop::sample::subsequence(
        vec![
            "\"label with blanks\"=\"x\"",
            "\"ä\"=\"é\"",
            "a!=\"\\n\\\"\\\\\"",
            "b=~\"x|y.*\"",
            "c!~\"[0-9]+\"",
            "on=\"\"",
        ],
        0..4,
    );
    chosen.prop_map(|chosen| chosen.join(",")).boxed()
}

fn series() -> Text {
    let name =
        one_of(&["up", "a:b", "fill", "start", "sum", "offset_total", "by", "bool", "step", "anchored"]);
    prop_oneof![
        (name, matchers()).prop_map(|(name, matchers)| format!("{name}{{{matchers}}}")),
        one_of(&["{\"utf-8 näme\"}", "{\"a.b\",x=\"1\"}", "{__name__=~\".+\"}", "up # remark\n", "{a='b',}"]),
    ]
    .boxed()
}

fn selector() -> Text {
    let extension = one_of(&["", "", "", " anchored", " smoothed"]);
    (series(), extension, at(), offset())
        .prop_map(|(series, extension, at, offset)| format!("{series}{extension}{at}{offset}"))
        .boxed()
}

fn number() -> Text {
    one_of(&[
        "1",
        "0x1F",
        "1_000",
        "1e3",
        "5m",
        "Inf",
        "NaN",
        ".5",
        "1e-10",
        "0b",
        "1h30m",
        "123456789012345678",
    ])
    .prop_map(|text| if text == "0b" { "0".to_owned() } else { text })
    .boxed()
}

fn labels() -> Text {
    one_of(&["()", "(a)", "(a, b,)", "(\"b.c\", on)", "(__name__)"])
}

fn matching() -> Text {
    let group = one_of(&["", "", " group_left", " group_right (z)", " group_left (\"y.z\", w)"]);
    let fill = one_of(&["", "", " fill (0)", " fill_left (1) fill_right (-2)", " fill_right (NaN)"]);
    (one_of(&[" on ", " ignoring "]), labels(), group, fill)
        .prop_map(|(word, labels, group, fill)| format!("{word}{labels}{group}{fill}"))
        .boxed()
}

fn vector() -> Text {
    selector()
        .prop_recursive(5, 60, 3, |vector| {
            let vector: Text = vector.boxed();
            let scalar = prop_oneof![
                number(),
                number().prop_map(|number| format!("-{number}")),
                one_of(&["time()", "pi()", "(1 + 2) * 3", "2 ^ -3 ^ 2", "- 1 ^ 2", "1 > bool 2"]),
                vector.clone().prop_map(|vector| format!("scalar({vector})")),
            ]
            .boxed();
            let range = prop_oneof![
                (series(), duration(), one_of(&["", "", " anchored", " smoothed"]), at(), offset()).prop_map(
                    |(series, range, extension, at, offset)| format!(
                        "{series}[{range}]{extension}{at}{offset}"
                    )
                ),
                (vector.clone(), duration(), prop::option::of(duration()), at(), offset()).prop_map(
                    |(vector, range, step, at, offset)| {
                        let step = step.unwrap_or_default();
                        format!("({vector})[{range}:{step}]{at}{offset}")
                    }
                ),
            ]
            .boxed();
            let operator = one_of(&["+", "-", "*", "/", "%", "^", "atan2", "==", "!= bool", ">", "<= bool"]);
            let set = one_of(&["and", "or", "unless"]);
            let keep = one_of(&["", " on (a)", " ignoring (a, b)"]);
            let clause = (one_of(&["by", "without"]), labels())
                .prop_map(|(word, labels)| format!(" {word} {labels} "))
                .boxed();
            prop_oneof![
                (
                    one_of(&["rate", "avg_over_time", "absent_over_time", "last_over_time", "resets"]),
                    range.clone()
                )
                    .prop_map(|(name, range)| format!("{name}({range})")),
                (scalar.clone(), range)
                    .prop_map(|(scalar, range)| format!("quantile_over_time({scalar}, {range})")),
                (
                    one_of(&["abs", "-", "+", "(", "sort_desc", "histogram_quantile(0.9,", "info"]),
                    vector.clone()
                )
                    .prop_map(|(call, vector)| match call.as_str() {
                        "-" | "+" => format!("{call}{vector}"),
                        "(" => format!("({vector})"),
                        "histogram_quantile(0.9," => format!("{call} {vector})"),
                        "info" => format!("info({vector}, {{a=~\".+\"}})"),
                        call => format!("{call}({vector})"),
                    }),
                vector
                    .clone()
                    .prop_map(|vector| format!("label_replace({vector}, \"a\", '$1\\t', `b`, \"(.*)\")")),
                vector.clone().prop_map(|vector| format!("sort_by_label({vector}, \"a\", \"b\")")),
                (one_of(&["sum", "count", "stddev", "group"]), clause.clone(), vector.clone(), any::<bool>())
                    .prop_map(|(op, clause, vector, before)| match before {
                        true => format!("{op}{clause}({vector})"),
                        false => format!("{op}({vector}){clause}"),
                    }),
                (one_of(&["topk", "quantile", "limit_ratio"]), scalar.clone(), vector.clone(), clause)
                    .prop_map(|(op, scalar, vector, clause)| format!("{op}{clause}({scalar}, {vector})")),
                vector.clone().prop_map(|vector| format!("count_values(\"x.y\", {vector})")),
                (vector.clone(), operator.clone(), matching(), vector.clone())
                    .prop_map(|(lhs, op, matching, rhs)| format!("{lhs} {op}{matching} {rhs}")),
                (vector.clone(), operator.clone(), scalar.clone())
                    .prop_map(|(lhs, op, rhs)| format!("{lhs} {op} {rhs}")),
                (scalar, operator, vector.clone()).prop_map(|(lhs, op, rhs)| format!("{lhs} {op} {rhs}")),
                (vector.clone(), set, keep, vector)
                    .prop_map(|(lhs, op, keep, rhs)| format!("{lhs} {op}{keep} {rhs}")),
            ]
            .boxed()
        })
        .boxed()
}

/// A query without the places where its parts stand.
fn tree(expr: &Expr) -> Vec<String> {
    expr.nodes().map(|(_, node)| format!("{:?}", node.kind)).collect()
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same_query(query in vector()) {
        // Not all of them pass the type check: operators bind otherwise than they were put together.
        if let Ok(expr) = parse(&query) {
            for printed in [expr.to_string(), prettify(&expr)] {
                let again = parse(&printed).unwrap_or_else(|error| panic!("{query}\n-> {printed}\n{error}"));
                prop_assert_eq!(tree(&again), tree(&expr), "{}\n-> {}", query, printed);
                prop_assert_eq!(again.to_string(), expr.to_string());
            }
        }
    }
}

#[test]
fn most_queries_made_at_random_are_queries() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let queries: Vec<String> = (0..200).map(|_| vector().new_tree(&mut runner).unwrap().current()).collect();
    let refused: Vec<_> =
        queries.iter().filter_map(|query| Some((query, parse(query).err()?.to_string()))).collect();
    assert!(refused.len() < 60, "{} refused: {refused:#?}", refused.len());
}

#[test]
fn infinite_bases_and_selectors_without_anything_read_as_they_were() {
    for query in ["-Inf ^ up", "Inf ^ up", "2 * Inf ^ 2", "info(up, {})", "-Inf"] {
        let expr = parse(query).unwrap();
        let again = parse(&expr.to_string()).unwrap_or_else(|error| panic!("{query} -> {expr}: {error}"));
        assert_eq!(tree(&again), tree(&expr), "{query} -> {expr}");
    }
}
