//! The parser: what it accepts and prints, what it refuses and how, and that no input harms it.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test where something is wrong")]

use pharos_promql::ast::{NodeKind, prettify, to_json};
use pharos_promql::{Engine, QueryOptions, Value, parse};
use proptest::prelude::*;

#[track_caller]
fn prints(query: &str, want: &str) {
    let printed = parse(query).unwrap().to_string();
    assert_eq!(printed, want);
    assert_eq!(parse(&printed).unwrap().to_string(), want, "the printed form reads back as itself");
}

#[track_caller]
fn fails(query: &str, want: &str) {
    assert_eq!(parse(query).unwrap_err().to_string(), want);
}

#[test]
fn queries_print_in_prometheus_canonical_form() {
    prints("sum(up)by(job)", "sum by (job) (up)");
    prints("sum without(a,'b.c')(up)", r#"sum without (a, "b.c") (up)"#);
    prints("sum by()(up)", "sum(up)");
    prints("topk(5,up{job='x'})", r#"topk(5, up{job="x"})"#);
    prints("up{b!='1',a=~\"x|y\"}", r#"up{a=~"x|y",b!="1"}"#);
    prints(r#"{"my.metric", "a.b"="c"}"#, r#"{"a.b"="c",__name__="my.metric"}"#);
    prints("{__name__='up'}", r#"{__name__="up"}"#);
    prints("rate(up[5m] offset 1h)", "rate(up[5m] offset 1h)");
    prints("up @ 1.5 offset -90s", "up @ 1.500 offset -1m30s");
    prints("up offset 5m @ start()", "up @ start() offset 5m");
    prints("up @ -10", "up @ -10.000");
    prints("max_over_time(rate(up[5m])[1h:] @ end())", "max_over_time(rate(up[5m])[1h:] @ end())");
    prints("up[60]", "up[1m]");
    prints("up[5m*2]", "up[5m * 2]");
    prints("up[-(5m - 3*step())]", "up[-(5m - 3 * step())]");
    prints("up[min_of(5m,step()):max(1m,range())]", "up[min_of(5m, step()):max_of(1m, range())]");
    prints("up offset (1h + step())", "up offset (1h + step())");
    prints("rate(up[5m] anchored)", "rate(up[5m] anchored)");
    prints("up smoothed", "up smoothed");
    prints("a+on(x)group_left(y)b", "a + on (x) group_left (y) b");
    prints("a/ignoring(x)group_right b", "a / ignoring (x) group_right () b");
    prints("a==bool on()b", "a == bool on () b");
    prints("a+fill(0)b", "a + fill (0) b");
    prints("a+fill_right(1)fill_left(-2)b", "a + fill_left (-2) fill_right (1) b");
    prints("a</1", "a </ 1");
    prints("a>/b", "a >/ b");
    prints("0x1F + 1e3 + 1_000 + .5", "31 + 1000 + 1000 + 0.5");
    prints("5m + 1h30m", "5m + 1h30m");
    prints("-Inf + NaN", "-Inf + NaN");
    prints("-(1)^2", "-(1) ^ 2");
    prints("- -a", "--a");
    prints("\"a\\n\\\"\" ", "\"a\\n\\\"\"");
    prints("up # comment\n + # another\n 1", "up + 1");
    prints("sum + by + offset + and", "sum + by + offset + and");
    prints("start() + end() * step() - range()", "start() + end() * step() - range()");
    prints("count_values('v', up)", "count_values(\"v\", up)");
    prints("histogram_quantiles(up, 'q', 0.5, 0.9)", "histogram_quantiles(up, \"q\", 0.5, 0.9)");
}

#[test]
fn operators_bind_as_in_prometheus() {
    // The outermost operator tells how the rest is grouped.
    #[track_caller]
    fn outermost(query: &str, want: &str, lhs: &str, rhs: &str) {
        let expr = parse(query).unwrap();
        let NodeKind::Binary(binary) = &expr.node(expr.root()).kind else { panic!("{query}") };
        let text = |id| {
            let span = expr.node(id).span;
            &query[span.start..span.end]
        };
        assert_eq!((binary.op.as_str(), text(binary.lhs), text(binary.rhs)), (want, lhs, rhs));
    }
    outermost("1 + 2 * 3", "+", "1", "2 * 3");
    outermost("1 - 2 - 3", "-", "1 - 2", "3");
    outermost("2 ^ 3 ^ 4", "^", "2", "3 ^ 4");
    outermost("-a ^ 2 * b", "*", "-a ^ 2", "b");
    outermost("2 ^ -a ^ 3", "^", "2", "-a ^ 3");
    outermost("a or b and c", "or", "a", "b and c");
    outermost("a unless b and c", "and", "a unless b", "c");
    outermost("a == bool b > bool c", ">", "a == bool b", "c");
    outermost("a offset 5m + 2", "+", "a offset 5m", "2");
    outermost("a atan2 b % c", "%", "a atan2 b", "c");
}

#[test]
fn every_node_knows_its_place() {
    let query = "sum by (a) (rate(up{x=\"y\"}[5m] offset 1m)) > -1";
    let expr = parse(query).unwrap();
    let places: Vec<&str> = expr.nodes().map(|(_, node)| &query[node.span.start..node.span.end]).collect();
    assert_eq!(
        places,
        [
            "up{x=\"y\"}[5m] offset 1m",
            "rate(up{x=\"y\"}[5m] offset 1m)",
            "sum by (a) (rate(up{x=\"y\"}[5m] offset 1m))",
            "-1",
            query,
        ]
    );
}

#[test]
fn what_is_no_query_is_refused_as_prometheus_refuses_it() {
    fails("", "unknown position: parse error: no expression found in input");
    fails("# just a comment\n\n", "1:1: parse error: no expression found in input");
    fails("1+", "1:3: parse error: unexpected end of input");
    fails(".", "1:1: parse error: unexpected character: '.'");
    fails("2.5.", "1:1: parse error: bad number or duration syntax: \"2.5.\"");
    fails("100..4", "1:1: parse error: bad number or duration syntax: \"100..\"");
    fails("0deadbeef", "1:1: parse error: bad number or duration syntax: \"0de\"");
    fails("1 /", "1:4: parse error: unexpected end of input");
    fails("*1", "1:1: parse error: unexpected <op:*>");
    fails("(1))", "1:4: parse error: unexpected right parenthesis ')'");
    fails("((1)", "1:5: parse error: unclosed left parenthesis");
    fails("(", "1:2: parse error: unclosed left parenthesis");
    fails("1 and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression");
    fails("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier");
    fails("1 !~ 1", "1:3: parse error: unexpected character after '!': '~'");
    fails("1 =~ 1", "1:3: parse error: unexpected character after '=': '~'");
    fails(
        "-\"string\"",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
    );
    fails(
        "-test[5m]",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
    );
    fails("*test", "1:1: parse error: unexpected <op:*>");
    fails(
        "1 offset 1d",
        "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    fails("foo offset 1s offset 2s", "1:1: parse error: offset may not be set multiple times");
    fails("a - on(b) ignoring(c) d", "1:11: parse error: unexpected <ignoring>");
    fails(
        "foo or on(bar) group_left(baz) test",
        "1:1: parse error: no grouping allowed for \"or\" operation",
    );
    fails("foo == on(bar) 10", "1:1: parse error: vector matching only allowed between instant vectors");
    fails("foo + group_left(baz) bar", "1:7: parse error: unexpected <group_left>");
    fails("foo and on(bar) 10", "1:1: parse error: vector matching only allowed between instant vectors");
    fails("foo + bool bar", "1:5: parse error: bool modifier can only be used on comparison operators");
    fails(
        "foo * on(a) group_left(a) bar",
        "1:5: parse error: label \"a\" must not occur in ON and GROUP clause at once",
    );
    fails("{", "1:2: parse error: unexpected end of input inside braces");
    fails("}", "1:1: parse error: unexpected character: '}'");
    fails("some{", "1:6: parse error: unexpected end of input inside braces");
    fails(
        "some_metric{a=b}",
        "1:15: parse error: unexpected identifier \"b\" in label matching, expected string",
    );
    fails("some_metric{a:b=\"b\"}", "1:14: parse error: unexpected character inside braces: ':'");
    fails("foo{a*\"b\"}", "1:6: parse error: unexpected character inside braces: '*'");
    fails(
        "foo{gibberish}",
        "1:14: parse error: unexpected \"}\" in label matching, expected label matching operator",
    );
    fails("foo{1}", "1:5: parse error: unexpected character inside braces: '1'");
    fails("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
    fails("{x=\"\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
    fails("foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\"");
    fails(
        "foo{__name__= =\"bar\"}",
        "1:15: parse error: unexpected \"=\" in label matching, expected string",
    );
    fails("foo[5mm]", "1:5: parse error: bad number or duration syntax: \"5mm\"");
    fails("foo[5m1]", "1:5: parse error: bad number or duration syntax: \"5m1\"");
    fails("foo[5m:1m1]", "1:8: parse error: bad number or duration syntax: \"1m1\"");
    fails("foo[\"5m\"]", "1:5: parse error: unexpected character in duration expression: '\"'");
    fails(
        "foo[]",
        "1:5: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
    );
    fails("foo[5m", "1:7: parse error: unclosed left bracket");
    fails("foo[0m]", "1:5: parse error: duration must be greater than 0");
    fails(
        "foo[5m 4]",
        "1:8: parse error: unexpected number \"4\" in subquery or range, expected \":\" or \"]\"",
    );
    fails("foo[5m:4m 1]", "1:11: parse error: unexpected number \"1\" in subquery selector, expected \"]\"");
    fails("foo[5m/0]", "1:8: parse error: division by zero");
    fails(
        "some_metric[5m] OFFSET",
        "1:23: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
    );
    fails("some_metric OFFSET 1m[5m]", "1:22: parse error: no offset modifiers allowed before range");
    fails("some_metric[5m] @ m", "1:19: parse error: unexpected identifier \"m\" in @, expected timestamp");
    fails("some_metric @ 5m[5m]", "1:17: parse error: no @ modifiers allowed before range");
    fails("(foo + bar)[5m]", "1:12: parse error: ranges only allowed for vector selectors");
    fails(
        "test[5d][5m:]",
        "1:1: parse error: subquery is only allowed on instant vector, got matrix instead",
    );
    fails(
        "sum without(==)(some_metric)",
        "1:13: parse error: unexpected <op:==> in grouping opts, expected label",
    );
    fails(
        "sum without(,)(some_metric)",
        "1:13: parse error: unexpected \",\" in grouping opts, expected label",
    );
    fails("sum some_metric by (test)", "1:5: parse error: unexpected identifier \"some_metric\"");
    fails("sum (some_metric) without (test) by (test)", "1:34: parse error: unexpected <by>");
    fails(
        "topk(some_metric)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    );
    fails("topk(some_metric,)", "1:17: parse error: trailing commas not allowed in function call args");
    fails("sum()", "1:1: parse error: no arguments for aggregate expression provided");
    fails(
        "topk(some_metric, other_metric)",
        "1:6: parse error: expected type scalar in aggregation parameter, got instant vector",
    );
    fails(
        "count_values(5, other_metric)",
        "1:14: parse error: expected type string in aggregation parameter, got scalar",
    );
    fails(
        "rate(some_metric)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    fails("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0");
    fails("hour(a, b)", "1:1: parse error: expected at most 1 argument(s) in call to \"hour\", got 2");
    fails(
        "label_join(a, \"b\")",
        "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 2",
    );
    fails(
        "non_existent_function(a)",
        "1:1: parse error: unknown function with name \"non_existent_function\"",
    );
    fails("info(up, up)", "1:10: parse error: expected label selectors only, got vector selector instead");
    fails("label_replace(a, `b`, `c\u{fffd}`, `d`, `.*`", "1:40: parse error: unclosed left parenthesis");
    fails("'a\\q'", "1:1: parse error: unknown escape sequence U+0071 'q'");
    fails("\"a", "1:1: parse error: unterminated quoted string");
    fails("`a", "1:1: parse error: unterminated raw string");
    fails("a\n+ b\n+ )", "3:3: parse error: unexpected right parenthesis ')'");
    fails(
        "foo anchored smoothed",
        "1:1: parse error: anchored and smoothed modifiers cannot be used together",
    );
    fails(
        "1 + fill(0) foo",
        "1:1: parse error: filling in missing series only allowed between instant vectors",
    );
    fails("foo and fill(0) bar", "1:1: parse error: filling in missing series not allowed for set operators");
    fails("up{a=~\"(\"}", "1:4: parse error: error parsing regexp: unclosed group: `(`");
}

/// Runs a check on a thread whose stack is so small that any recursion over the query overflows it.
fn on_a_small_stack(check: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 << 10).spawn(check).unwrap().join().unwrap();
}

const DEPTH: usize = 100_000;

#[test]
fn deep_nesting_costs_no_stack() {
    on_a_small_stack(|| {
        let queries = [
            format!("{}1{}", "(".repeat(DEPTH), ")".repeat(DEPTH)),
            format!("{}up", "-".repeat(DEPTH)),
            format!("1{}", " + 1".repeat(DEPTH)),
            format!("1{}", " ^ 1".repeat(DEPTH)),
            format!("{}up{}", "abs(".repeat(DEPTH), ")".repeat(DEPTH)),
            format!("{}up{}", "sum(".repeat(DEPTH), ")".repeat(DEPTH)),
            format!("{}up{}", "sum_over_time(".repeat(1_000), "[1m:30s])".repeat(1_000)),
            format!("up[{}5m{}]", "(".repeat(DEPTH), ")".repeat(DEPTH)),
            format!("up[{}5m]", "1 + ".repeat(DEPTH)),
            format!("up[{}5m]", "-".repeat(DEPTH * 2)),
            format!("up offset {}5m{}", "(".repeat(DEPTH), ")".repeat(DEPTH)),
            format!("up{}", " or up".repeat(DEPTH)),
        ];
        for query in queries {
            let expr = parse(&query).unwrap();
            assert!(!expr.to_string().is_empty());
            prettify(&expr);
            to_json(&expr);
            drop(expr);
        }
        for query in ["(", "-", "{", "[", "sum(", "a[", "1+", "\"", "a or ", "min(", "sum by ("] {
            assert!(parse(&query.repeat(DEPTH)).is_err());
        }
    });
}

#[test]
fn deep_queries_are_evaluated_without_recursion() {
    on_a_small_stack(|| {
        let engine = Engine::default();
        let chain = format!("1{}", " + 1".repeat(DEPTH));
        let result = engine.instant(&(), &chain, 0, &QueryOptions::default()).unwrap();
        let Value::Scalar(sample) = result.value else { panic!() };
        assert_eq!(sample.value, (DEPTH + 1) as f64);
        let nested = format!("{}vector(1){}", "abs(".repeat(DEPTH), ")".repeat(DEPTH));
        let result = engine.instant(&(), &nested, 0, &QueryOptions::default()).unwrap();
        assert!(matches!(result.value, Value::Vector(vector) if vector.len() == 1));
    });
}

#[test]
fn long_queries_are_laid_out_over_lines() {
    let long = "a".repeat(60);
    let query = format!("sum by (job) (rate({long}[5m])) / on (job) {long}");
    let want = format!("  sum by (job) (rate({long}[5m]))\n/ on (job)\n  {long}");
    assert_eq!(prettify(&parse(&query).unwrap()), want);
    assert_eq!(prettify(&parse("sum( up )by (job)").unwrap()), "sum by (job) (up)");
    let query = format!("-{long} ^ {long}");
    assert_eq!(prettify(&parse(&query).unwrap()), format!("-{long}\n^\n  {long}"));
    let call = format!("label_replace({long}, \"a\", \"b\", \"c\", \"d{long}\")");
    let want = format!("label_replace(\n  {long},\n  \"a\",\n  \"b\",\n  \"c\",\n  \"d{long}\"\n)");
    assert_eq!(prettify(&parse(&call).unwrap()), want);
}

#[test]
fn trees_are_written_as_json() {
    #[track_caller]
    fn check(query: &str, want: &str) {
        assert_eq!(to_json(&parse(query).unwrap()), want);
    }
    check("1.5", r#"{"type":"numberLiteral","val":"1.5"}"#);
    check(
        "-up{a=~\"b\\n\"} offset 1m",
        r#"{"expr":{"anchored":false,"matchers":[{"name":"a","type":"=~","value":"b\n"},{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":60000,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"op":"-","type":"unaryExpr"}"#,
    );
    check(
        "rate(up[5m] @ end())",
        r#"{"args":[{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":0,"range":300000,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},"type":"call"}"#,
    );
    check(
        "sum by (a) (1 > bool vector(2))",
        r#"{"expr":{"bool":true,"lhs":{"type":"numberLiteral","val":"1"},"matching":null,"op":">","rhs":{"args":[{"type":"numberLiteral","val":"2"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"type":"binaryExpr"},"grouping":["a"],"op":"sum","param":null,"type":"aggregation","without":false}"#,
    );
    check(
        "vector(1)[5m:step()]",
        r#"{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"offset":0,"range":300000,"startOrEnd":null,"step":0,"stepExpr":"step()","timestamp":null,"type":"subquery"}"#,
    );
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_mix_of_words_is_parsed_or_refused_and_prints_as_it_reads(
        words in prop::collection::vec(prop::sample::select(vec![
            "up", "{a=\"b\"}", "(", ")", "[5m]", "[5m:1m]", "offset", "5m", "@", "start()", "1", "-", "+", "^",
            "and", "on", "(a)", "group_left", "bool", "==", "sum", "by", "rate", ",", "\"x\"", "fill(0)",
            "anchored", "time()", "topk(1,", "#\n",
        ]), 0..14)
    ) {
        let query = words.join(" ");
        if let Ok(expr) = parse(&query) {
            let printed = expr.to_string();
            let again = parse(&printed).unwrap_or_else(|error| panic!("{query} -> {printed}: {error}"));
            prop_assert_eq!(again.to_string(), printed);
            prop_assert!(parse(&prettify(&expr)).is_ok());
        }
    }
}
