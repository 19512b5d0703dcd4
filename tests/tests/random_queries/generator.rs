//! Random queries, each in two texts: ours in the language of Prometheus 3, and one that Debian's Prometheus
//! 2.42 must answer alike.
//!
//! What changed between the two, and how a question is put so that it does not matter, or is translated:
//!
//! - *Windows.* Those of 3 are open on the left, `(t-5m, t]`, those of 2 closed, `[t-5m, t]`. Times are whole
//!   milliseconds, so `x[5m]` of 3 is `x[4m59s999ms]` of 2; the lookback of 2 is set by its flag likewise. Functions
//!   that look at the length of their range (`rate`, `increase`, `delta`) cannot be asked so: they get
//!   series and times of which none meets an edge (see `data`), and subqueries only where the query's
//!   times are half seconds and the subquery's whole ones.
//! - *Zero.* 2 lets a counter begin further back than 3 does. `rate` and `increase` get counters of which that
//!   is not so (see `data`), and no subqueries.
//! - *Deviation of one value.* `stddev(NaN)` is NaN in 3 and 0 in 2. In 2 it becomes `stddev(x) + 0 * sum(x)`.
//! - *Functions of the time.* 2 takes the `@` of their argument for an offset from the query's first step, wrong
//!   at all others: `predict_linear(x[5m] @ t, 60)` and `timestamp(x @ t)` are not asked.
//! - *Equal values.* Which of them `topk` takes depends on their order, which is random in 2 for what functions
//!   return, and from two on also on details of its heap. There the sum of what was taken is compared.
//! - *The last digit.* Averages are added up more exactly by 3. `count_values`, which prints it, gets rounded values.
//! - *Names.* `holt_winters` became `double_exponential_smoothing`.
//! - *Removal of metric names.* 3 (with its feature, which is always on here) removes them at the end of a query,
//!   2 at once, and finds two series to be one where 3 sees two: see `compare::Difference`.

use crate::data::{SPAN_MS, START_MS};
use crate::random::Random;

/// A query in both languages, and when it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) times: Times,
}

/// One time or a range of them, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Times {
    At(i64),
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

/// A text of each language.
#[derive(Clone, Debug)]
struct Text {
    ours: String,
    theirs: String,
}

impl Text {
    fn same(text: impl Into<String>) -> Self {
        let ours = text.into();
        Text { theirs: ours.clone(), ours }
    }

    /// Puts the texts of parts into a pattern with `$1`, `$2`, `$3`.
    fn of(pattern: &str, parts: &[&Text]) -> Self {
        let fill = |text: fn(&Text) -> &str| {
            parts.iter().enumerate().fold(pattern.to_owned(), |filled, (index, part)| {
                filled.replace(&format!("${}", index + 1), text(part))
            })
        };
        Text { ours: fill(|part| &part.ours), theirs: fill(|part| &part.theirs) }
    }
}

const LABELS: [&str; 5] = ["job", "instance", "cpu", "env", "zone"];
const ON_EDGES: [&str; 4] = ["gauge", "gauge_gaps", "plateau", "special"];
const OFF_EDGES: [&str; 3] = ["jitter", "counter", "counter_gaps"];
const DURATIONS: [&str; 7] = ["15s", "30s", "45s", "1m", "150s", "5m", "20m"];
/// Functions of one number. Those that make much of a last digit are left out.
const MATHS: [&str; 20] = [
    "abs",
    "ceil",
    "floor",
    "exp",
    "ln",
    "log2",
    "log10",
    "sqrt",
    "sgn",
    "deg",
    "rad",
    "atan",
    "tanh",
    "asinh",
    "cosh",
    "sin",
    "cos",
    "round",
    "sort",
    "sort_desc",
];
const DATES: [&str; 8] =
    ["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"];
const OVER_TIME: [&str; 15] = [
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "absent_over_time",
    "changes",
    "resets",
    "idelta",
    "irate",
    "deriv",
];
const FOLDS: [&str; 6] = ["sum", "avg", "min", "max", "count", "group"];
const ARITHMETIC: [&str; 6] = ["+", "-", "*", "/", "%", "^"];
const COMPARISONS: [&str; 6] = ["==", "!=", ">", "<", ">=", "<="];

pub(crate) struct Generator<'r> {
    random: &'r mut Random,
    /// Whether the query's times are half seconds.
    half: bool,
    /// Subqueries around.
    subqueries: u32,
}

/// The next query.
pub(crate) fn query(random: &mut Random) -> Query {
    let half = random.once_in(2);
    let shift = if half { 500 } else { 0 };
    // Also some time before the first sample and after the last.
    let second =
        |random: &mut Random| START_MS + 1_000 * (random.below(SPAN_MS as u64 / 1_000 + 900) as i64 - 300);
    let at_ms = if random.once_in(2) { second(random) } else { second(random) / 15_000 * 15_000 } + shift;
    let times = if random.once_in(2) {
        Times::At(at_ms)
    } else {
        let step_ms = 1_000 * random.pick(&[1, 5, 15, 15, 30, 60, 300]);
        Times::Range { start_ms: at_ms, end_ms: at_ms + step_ms * random.below(40) as i64, step_ms }
    };
    let depth = 1 + random.below(4) as u32;
    let mut generator = Generator { random, half, subqueries: 0 };
    let text = match generator.random.below(40) {
        0 => generator.scalar(depth),
        1 if matches!(times, Times::At(_)) => generator.range(),
        _ => generator.vector(depth),
    };
    Query { ours: text.ours, theirs: text.theirs, times }
}

impl Generator<'_> {
    fn vector(&mut self, depth: u32) -> Text {
        if depth == 0 {
            return self.selector();
        }
        match self.random.below(22) {
            0..=1 => self.selector(),
            2..=4 => self.over_time(depth),
            5..=6 => self.rate(depth),
            7..=10 => self.aggregate(depth),
            11..=13 => self.match_vectors(depth),
            14 => self.set_operator(depth),
            15..=16 => self.with_scalar(depth),
            17 => self.maths(depth),
            18 => self.labels(depth),
            19 => self.histogram_quantile(),
            20 => {
                let inner = self.vector(depth - 1);
                match self.random.below(3) {
                    0 => Text::of("vector($1)", &[&self.scalar(depth - 1)]),
                    1 if !inner.ours.contains('@') => Text::of("timestamp($1)", &[&inner]),
                    _ => Text::of("absent($1)", &[&inner]),
                }
            }
            _ => Text::of("-($1)", &[&self.vector(depth - 1)]),
        }
    }

    fn scalar(&mut self, depth: u32) -> Text {
        match self.random.below(if depth == 0 { 6 } else { 9 }) {
            0..=4 => {
                Text::same(self.random.pick(&["0", "1", "2", "-1", "0.5", "10", "100", "1e3", "NaN", "Inf"]))
            }
            5 => Text::same("time()"),
            6 => Text::of("scalar($1)", &[&self.vector(depth - 1)]),
            7 => {
                let pattern = format!("($1 {} $2)", self.random.pick(&ARITHMETIC));
                let parts = (self.scalar(depth - 1), self.scalar(depth - 1));
                Text::of(&pattern, &[&parts.0, &parts.1])
            }
            _ => {
                let pattern = format!("($1 {} bool $2)", self.random.pick(&COMPARISONS));
                let parts = (self.scalar(depth - 1), self.scalar(depth - 1));
                Text::of(&pattern, &[&parts.0, &parts.1])
            }
        }
    }

    fn number(&mut self) -> Text {
        Text::same(self.random.pick(&["0", "1", "5", "10", "50", "-3", "0.5", "NaN", "Inf"]))
    }

    fn metric(&mut self) -> &'static str {
        if self.random.once_in(2) { self.random.pick(&OFF_EDGES) } else { self.random.pick(&ON_EDGES) }
    }

    fn matchers(&mut self) -> String {
        let mut matchers = Vec::new();
        while matchers.len() < 3 && self.random.once_in(2) {
            matchers.push(self.random.pick(&[
                r#"job="a""#,
                r#"job="b""#,
                r#"job!="a""#,
                r#"job=~"a|b""#,
                r#"job=~".+""#,
                r#"instance=~"n[12]""#,
                r#"instance!~"n1""#,
                r#"instance="n1""#,
                r#"cpu="0""#,
                r#"cpu=~"0|x""#,
                r#"env="""#,
                r#"env!="""#,
                r#"env=~"pro.*""#,
                r#"env!~"dev|""#,
                r#"missing="""#,
                r#"missing="x""#,
                r#"env=~".*""#,
            ]));
        }
        if matchers.is_empty() { String::new() } else { format!("{{{}}}", matchers.join(",")) }
    }

    fn modifiers(&mut self) -> String {
        let mut modifiers = String::new();
        if self.random.once_in(8) {
            let shift = if self.half && self.subqueries == 0 { ".500" } else { "" };
            let second = (START_MS / 1_000) as u64 + self.random.below(SPAN_MS as u64 / 1_000);
            modifiers += &match self.random.below(4) {
                0 => " @ start()".to_owned(),
                1 => " @ end()".to_owned(),
                _ => format!(" @ {second}{shift}"),
            };
        }
        if self.random.once_in(6) {
            modifiers += " offset ";
            modifiers += self.random.pick(&["15s", "1m", "7m", "-1m", "-45s", "20m"]);
        }
        modifiers
    }

    fn selector(&mut self) -> Text {
        let (matchers, modifiers) = (self.matchers(), self.modifiers());
        if self.random.once_in(30) {
            return Text::same(format!("{{__name__=~\"gauge|plat.*\"}}{modifiers}"));
        }
        let metric = if self.random.once_in(40) { "missing" } else { self.metric() };
        Text::same(format!("{metric}{matchers}{modifiers}"))
    }

    /// A range for functions that do not look at its length.
    fn range(&mut self) -> Text {
        let (metric, matchers, modifiers) = (self.metric(), self.matchers(), self.modifiers());
        let length = self.random.pick(&DURATIONS);
        let range = |length: &str| format!("{metric}{matchers}[{length}]{modifiers}");
        Text { ours: range(length), theirs: range(&one_less(length)) }
    }

    /// A range for functions that look at its length.
    fn length_range(&mut self, metric: &str) -> Text {
        let (matchers, modifiers) = (self.matchers(), self.modifiers());
        Text::same(format!("{metric}{matchers}[{}]{modifiers}", self.random.pick(&DURATIONS)))
    }

    fn subquery(&mut self, depth: u32, length_counts: bool) -> Text {
        self.subqueries += 1;
        let inner = self.vector(depth);
        self.subqueries -= 1;
        let length = self.random.pick(&["30s", "1m", "5m", "10m"]);
        let step = self.random.pick(&["5s", "15s", "30s", "1m", "7s"]);
        let offset = if self.random.once_in(6) { " offset 1m" } else { "" };
        let theirs = if length_counts { length.to_owned() } else { one_less(length) };
        Text {
            ours: format!("({})[{length}:{step}]{offset}", inner.ours),
            theirs: format!("({})[{theirs}:{step}]{offset}", inner.theirs),
        }
    }

    fn any_range(&mut self, depth: u32) -> Text {
        if depth > 1 && self.subqueries < 2 && self.random.once_in(4) {
            self.subquery(depth - 1, false)
        } else {
            self.range()
        }
    }

    fn over_time(&mut self, depth: u32) -> Text {
        let range = self.any_range(depth);
        match self.random.below(18) {
            0 => {
                let pattern = format!(
                    "quantile_over_time({}, $1)",
                    self.random.pick(&["0", "0.5", "0.99", "1", "-1", "2"])
                );
                Text::of(&pattern, &[&range])
            }
            1 if !range.ours.contains('@') => Text::of("predict_linear($1, 60)", &[&range]),
            2 => Text {
                ours: format!("double_exponential_smoothing({}, 0.5, 0.3)", range.ours),
                theirs: format!("holt_winters({}, 0.5, 0.3)", range.theirs),
            },
            _ => Text::of(&format!("{}($1)", self.random.pick(&OVER_TIME)), &[&range]),
        }
    }

    fn rate(&mut self, depth: u32) -> Text {
        let subquery = self.half && self.subqueries == 0 && depth > 1 && self.random.once_in(6);
        if subquery || self.random.once_in(3) {
            let range = if subquery { self.subquery(depth - 1, true) } else { self.length_range("jitter") };
            return Text::of("delta($1)", &[&range]);
        }
        let counter = self.random.pick(&["counter", "counter_gaps"]);
        Text::of(&format!("{}($1)", self.random.pick(&["rate", "increase"])), &[&self.length_range(counter)])
    }

    fn grouping(&mut self) -> String {
        let mut labels: Vec<&str> = LABELS.to_vec();
        labels.retain(|_| self.random.once_in(2));
        match self.random.below(3) {
            0 => String::new(),
            1 => format!(" by ({})", labels.join(", ")),
            _ => format!(" without ({})", labels.join(", ")),
        }
    }

    fn aggregate(&mut self, depth: u32) -> Text {
        let (inner, grouping) = (self.vector(depth - 1), self.grouping());
        match self.random.below(12) {
            0..=1 => {
                let name = self.random.pick(&["topk", "bottomk"]);
                let count = self.random.pick(&["1", "2", "3", "0"]);
                if matches!(count, "0" | "1") {
                    return Text::of(&format!("{name}{grouping} ({count}, $1)"), &[&self.selector()]);
                }
                Text::of(&format!("sum{grouping} ({name}{grouping} ({count}, $1))"), &[&inner])
            }
            2 => {
                let share = self.random.pick(&["0", "0.5", "0.9", "1", "-0.1", "1.1"]);
                Text::of(&format!("quantile{grouping} ({share}, $1)"), &[&inner])
            }
            4 => {
                let name = self.random.pick(&["stddev", "stdvar"]);
                Text {
                    ours: format!("{name}{grouping} ({})", inner.ours),
                    theirs: format!(
                        "({name}{grouping} ({}) + 0 * sum{grouping} ({}))",
                        inner.theirs, inner.theirs
                    ),
                }
            }
            3 => Text::of(&format!("count_values{grouping} (\"value\", round($1, 0.5))"), &[&inner]),
            _ => Text::of(&format!("{}{grouping} ($1)", self.random.pick(&FOLDS)), &[&inner]),
        }
    }

    fn matching(&mut self, many: bool) -> String {
        let on = match self.random.below(4) {
            0 => String::new(),
            1 => "on (job, instance, cpu) ".to_owned(),
            2 => "ignoring (env) ".to_owned(),
            _ => {
                let mut labels = LABELS.to_vec();
                labels.retain(|_| self.random.once_in(2));
                format!("{} ({}) ", self.random.pick(&["on", "ignoring"]), labels.join(", "))
            }
        };
        if many && !on.is_empty() {
            format!(
                "{on}{} ",
                self.random.pick(&["group_left", "group_right", "group_left (zone)", "group_left (env)"])
            )
        } else {
            on
        }
    }

    fn match_vectors(&mut self, depth: u32) -> Text {
        if self.random.once_in(4) {
            // The join of every dashboard.
            let pattern = format!(
                "$1 {} on (job, instance) group_left (zone) node_info",
                self.random.pick(&["*", "+", "/"])
            );
            return Text::of(&pattern, &[&Text::of("($1)", &[&self.vector(depth - 1)])]);
        }
        let (lhs, rhs) = (self.vector(depth - 1), self.vector(depth - 1));
        let many = self.random.once_in(5);
        let matching = self.matching(many);
        let op = match self.random.below(4) {
            0 => self.random.pick(&COMPARISONS).to_owned(),
            1 => format!("{} bool", self.random.pick(&COMPARISONS)),
            _ => self.random.pick(&ARITHMETIC).to_owned(),
        };
        Text::of(&format!("($1) {op} {matching}($2)"), &[&lhs, &rhs])
    }

    fn set_operator(&mut self, depth: u32) -> Text {
        let (lhs, rhs) = (self.vector(depth - 1), self.vector(depth - 1));
        let op = self.random.pick(&["and", "or", "unless"]);
        Text::of(&format!("($1) {op} {}($2)", self.matching(false)), &[&lhs, &rhs])
    }

    fn with_scalar(&mut self, depth: u32) -> Text {
        let (vector, scalar) = (self.vector(depth - 1), self.scalar(depth.min(2) - 1));
        let op = match self.random.below(3) {
            0 => self.random.pick(&COMPARISONS).to_owned(),
            1 => format!("{} bool", self.random.pick(&COMPARISONS)),
            _ => self.random.pick(&ARITHMETIC).to_owned(),
        };
        let pattern = if self.random.once_in(2) { format!("($1) {op} $2") } else { format!("$2 {op} ($1)") };
        Text::of(&pattern, &[&vector, &scalar])
    }

    fn maths(&mut self, depth: u32) -> Text {
        let inner = self.vector(depth - 1);
        match self.random.below(6) {
            0 => {
                let bounds = (self.number(), self.number());
                Text::of("clamp($1, $2, $3)", &[&inner, &bounds.0, &bounds.1])
            }
            1 => Text::of("clamp_min($1, $2)", &[&inner, &self.number()]),
            2 => Text::of("clamp_max($1, $2)", &[&inner, &self.number()]),
            3 => Text::of(&format!("{}($1)", self.random.pick(&DATES)), &[&inner]),
            _ => Text::of(&format!("{}($1)", self.random.pick(&MATHS)), &[&inner]),
        }
    }

    fn labels(&mut self, depth: u32) -> Text {
        let inner = self.vector(depth - 1);
        let pattern = self.random.pick(&[
            r#"label_replace($1, "zone", "z-$2", "instance", "n(.)")"#,
            r#"label_replace($1, "env", "", "job", "b")"#,
            r#"label_replace($1, "x", "whole", "missing", "")"#,
            r#"label_join($1, "x", "-", "job", "instance", "cpu")"#,
            r#"label_join($1, "env", "", "missing")"#,
        ]);
        // `$1` is a group of the regular expression in the replacement.
        Text::of(pattern, &[&inner, &Text::same("$1")])
    }

    fn histogram_quantile(&mut self) -> Text {
        let share = self.random.pick(&["0", "0.5", "0.9", "0.99", "1", "-1", "2"]);
        let range = format!(
            "requests_bucket{}[{}]",
            self.random.pick(&["", r#"{job="a"}"#]),
            self.random.pick(&DURATIONS)
        );
        let by = self.random.pick(&["le", "le, job", "le, job, instance"]);
        Text::same(match self.random.below(3) {
            0 => format!("histogram_quantile({share}, requests_bucket)"),
            1 => format!("histogram_quantile({share}, rate({range}))"),
            _ => format!("histogram_quantile({share}, sum by ({by}) (rate({range})))"),
        })
    }
}

/// A duration less a millisecond.
fn one_less(duration: &str) -> String {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let factor = if unit == "m" { 60_000 } else { 1_000 };
    format!("{}ms", number.parse::<u64>().unwrap() * factor - 1)
}
