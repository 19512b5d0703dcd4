//! A small language of queries that can be printed as PromQL and evaluated naively, and random ones of it.

use proptest::prelude::*;

/// An instant vector.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    Selector(Selector),
    OverTime {
        function: &'static str,
        range: Range,
    },
    Aggregate {
        op: &'static str,
        by: Vec<&'static str>,
        of: Box<Query>,
    },
    /// An operator with one series on each side, matched `on` labels.
    OneToOne {
        op: &'static str,
        on: Vec<&'static str>,
        lhs: Box<Query>,
        rhs: Box<Query>,
    },
    /// `on (…) group_left`
    ManyToOne {
        op: &'static str,
        on: Vec<&'static str>,
        lhs: Box<Query>,
        rhs: Box<Query>,
    },
    Set {
        op: &'static str,
        on: Vec<&'static str>,
        lhs: Box<Query>,
        rhs: Box<Query>,
    },
    WithNumber {
        op: &'static str,
        lhs: Box<Query>,
        number: f64,
    },
}

/// Series of one kind, those with an `id` or all.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) id: Option<&'static str>,
    pub(crate) offset_s: i64,
    pub(crate) at_s: Option<i64>,
}

/// Samples of a range of time.
#[derive(Clone, Debug)]
pub(crate) enum Range {
    Samples { of: Selector, range_s: i64 },
    Subquery { of: Box<Query>, range_s: i64, step_s: i64, offset_s: i64 },
}

impl Query {
    /// The query as PromQL.
    pub(crate) fn text(&self) -> String {
        match self {
            Query::Selector(selector) => selector.text(""),
            Query::OverTime { function, range } => {
                let range = match range {
                    Range::Samples { of, range_s } => of.text(&format!("[{range_s}s]")),
                    Range::Subquery { of, range_s, step_s, offset_s } => {
                        format!("({})[{range_s}s:{step_s}s] offset {offset_s}s", of.text())
                    }
                };
                match *function {
                    "quantile_over_time" => format!("quantile_over_time(0.3, {range})"),
                    function => format!("{function}({range})"),
                }
            }
            Query::Aggregate { op: "quantile", by, of } => {
                format!("quantile by ({}) (0.3, {})", by.join(", "), of.text())
            }
            Query::Aggregate { op, by, of } => format!("{op} by ({}) ({})", by.join(", "), of.text()),
            Query::OneToOne { op, on, lhs, rhs } | Query::Set { op, on, lhs, rhs } => {
                format!("({}) {op} on ({}) ({})", lhs.text(), on.join(", "), rhs.text())
            }
            Query::ManyToOne { op, on, lhs, rhs } => {
                format!("({}) {op} on ({}) group_left () ({})", lhs.text(), on.join(", "), rhs.text())
            }
            Query::WithNumber { op, lhs, number } => format!("({}) {op} {number}", lhs.text()),
        }
    }
}

impl Query {
    /// The query with subqueries that reach back further, so that their windows, `by_s` seconds apart or less, leave
    /// no time between them. Like Prometheus, the engine evaluates what is inside at such times too.
    pub(crate) fn without_gaps(&self, by_s: i64) -> Query {
        let inside = |query: &Query| Box::new(query.without_gaps(by_s));
        match self.clone() {
            Query::OverTime { function, range: Range::Subquery { of, range_s, step_s, offset_s } } => {
                let of = Box::new(of.without_gaps(by_s + step_s));
                let range = Range::Subquery { of, range_s: range_s + by_s, step_s, offset_s };
                Query::OverTime { function, range }
            }
            query @ (Query::Selector(_) | Query::OverTime { .. }) => query,
            Query::Aggregate { op, by, of } => Query::Aggregate { op, by, of: inside(&of) },
            Query::OneToOne { op, on, lhs, rhs } => {
                Query::OneToOne { op, on, lhs: inside(&lhs), rhs: inside(&rhs) }
            }
            Query::ManyToOne { op, on, lhs, rhs } => {
                Query::ManyToOne { op, on, lhs: inside(&lhs), rhs: inside(&rhs) }
            }
            Query::Set { op, on, lhs, rhs } => Query::Set { op, on, lhs: inside(&lhs), rhs: inside(&rhs) },
            Query::WithNumber { op, lhs, number } => Query::WithNumber { op, lhs: inside(&lhs), number },
        }
    }
}

impl Selector {
    fn text(&self, range: &str) -> String {
        let id = self.id.map_or(String::new(), |id| format!(",id=\"{id}\""));
        let at = self.at_s.map_or(String::new(), |at_s| format!(" @ {at_s}"));
        format!("{{kind=\"m\"{id}}}{range}{at} offset {}s", self.offset_s)
    }
}

const FUNCTIONS: [&str; 18] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
    "changes",
    "resets",
];

fn selector() -> impl Strategy<Value = Selector> {
    let id = prop_oneof![2 => Just(None), 1 => prop::sample::select(vec![Some("1"), Some("2"), Some("9")])];
    let offset_s = prop_oneof![3 => Just(0), 1 => prop::sample::select(vec![30i64, 95, -45, 300])];
    let at_s = prop_oneof![4 => Just(None), 1 => (-100i64..700).prop_map(Some)];
    (id, offset_s, at_s).prop_map(|(id, offset_s, at_s)| Selector { id, offset_s, at_s })
}

fn labels() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(vec!["id", "cpu"], 0..=2)
}

/// Random queries, some levels deep.
pub(crate) fn query() -> impl Strategy<Value = Query> {
    let length_s = || prop::sample::select(vec![10i64, 45, 60, 125, 300]);
    let samples = (selector(), length_s()).prop_map(|(of, range_s)| Range::Samples { of, range_s });
    let over_time = |range: BoxedStrategy<Range>| {
        (prop::sample::select(FUNCTIONS.to_vec()), range)
            .prop_map(|(function, range)| Query::OverTime { function, range })
    };
    let leaf = prop_oneof![1 => selector().prop_map(Query::Selector), 2 => over_time(samples.boxed())];
    leaf.prop_recursive(3, 12, 2, move |inner| {
        let subquery = (inner.clone(), length_s(), prop::sample::select(vec![7i64, 15, 60]), 0i64..100).prop_map(
            |(of, range_s, step_s, offset_s)| Range::Subquery { of: Box::new(of), range_s, step_s, offset_s },
        );
        let two = (labels(), inner.clone(), inner.clone()).prop_map(|(on, lhs, rhs)| (on, Box::new(lhs), Box::new(rhs))).boxed();
        let ops = || prop::sample::select(vec!["+", "-", "*", "/", ">", "<=", "==", "!=", "> bool"]);
        prop_oneof![
            2 => over_time(subquery.boxed()),
            3 => (prop::sample::select(vec!["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile"]), labels(), inner.clone())
                .prop_map(|(op, by, of)| Query::Aggregate { op, by, of: Box::new(of) }),
            2 => (ops(), two.clone()).prop_map(|(op, (on, lhs, rhs))| Query::OneToOne { op, on, lhs, rhs }),
            2 => (ops(), two.clone()).prop_map(|(op, (on, lhs, rhs))| Query::ManyToOne { op, on, lhs, rhs }),
            1 => (prop::sample::select(vec!["and", "or", "unless"]), two)
                .prop_map(|(op, (on, lhs, rhs))| Query::Set { op, on, lhs, rhs }),
            1 => (ops(), inner, -5i32..50).prop_map(|(op, lhs, number)| Query::WithNumber { op, lhs: Box::new(lhs), number: f64::from(number) }),
        ]
    })
}
