//! What a query says, as a tree without pointers.
//!
//! An [`Expr`] owns all its nodes in one vector, children before parents, and nodes name each other by
//! [`NodeId`]. So a query of any depth is read, walked and dropped without recursion, and every pass
//! over it (type check, plan, evaluation) is a loop. A node's [`Span`] says which bytes of the query it
//! came from.
//!
//! A reader who looks for a shape, say a rule engine for thresholds, starts at [`Expr::root`] and
//! matches on [`NodeKind`]:
//!
//! ```
//! use pharos_promql::ast::{BinaryOp, NodeKind};
//! let expr = pharos_promql::parse("gpu_temperature_celsius > 90").unwrap();
//! let NodeKind::Binary(binary) = &expr.node(expr.root()).kind else { panic!() };
//! assert_eq!(binary.op, BinaryOp::Greater);
//! assert!(matches!(expr.node(binary.lhs).kind, NodeKind::Selector(_)));
//! assert_eq!(expr.constant(binary.rhs), Some(90.0));
//! ```

mod duration;
mod json;
mod nodes;
mod operators;
mod prettify;
mod print;

pub use duration::{DurationExpr, DurationExprError, DurationId, DurationNode, DurationOp, DurationValue};
pub use json::to_json;
pub use nodes::{
    Aggregate, AtModifier, Binary, Call, Cardinality, NumberLiteral, Range, RangeExtension, StringLiteral,
    Subquery, Unary, VectorMatching, VectorSelector,
};
pub(crate) use operators::UNARY_PRECEDENCE;
pub use operators::{AggregateOp, BinaryOp, ValueType};
pub use prettify::prettify;

use crate::span::Span;

/// Names a node of one [`Expr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A parsed and type-checked query.
#[derive(Clone, Debug)]
pub struct Expr {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
    pub(crate) query: String,
}

/// One node and where it stands in the query.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// The bytes it came from.
    pub span: Span,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// `1.5`, `0x1f`, `5m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `up{job="node"} @ 0 offset 5m`
    Selector(VectorSelector),
    /// `up[5m]`
    Range(Range),
    /// `rate(up[5m])[1h:1m]`
    Subquery(Subquery),
    /// `rate(…)`
    Call(Call),
    /// `sum by (job) (…)`
    Aggregate(Aggregate),
    /// `a + on (job) b`
    Binary(Binary),
    /// `-a`
    Unary(Unary),
    /// `(a)`
    Paren(NodeId),
}

impl Expr {
    /// The outermost node.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// A node. Ids of other expressions give the outermost node.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id.index()).unwrap_or(&self.nodes[self.root.index()])
    }

    /// The text that was parsed.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// All nodes, children before their parents.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index as u32), node))
    }

    /// What the whole query evaluates to.
    pub fn value_type(&self) -> ValueType {
        self.type_of(self.root)
    }

    /// What a node evaluates to.
    pub fn type_of(&self, id: NodeId) -> ValueType {
        let mut id = id;
        loop {
            return match &self.node(id).kind {
                NodeKind::Number(_) => ValueType::Scalar,
                NodeKind::String(_) => ValueType::String,
                NodeKind::Selector(_) | NodeKind::Aggregate(_) => ValueType::Vector,
                NodeKind::Range(_) | NodeKind::Subquery(_) => ValueType::Matrix,
                NodeKind::Call(call) => call.function.returns,
                NodeKind::Binary(binary) => binary.value_type,
                NodeKind::Unary(unary) => {
                    id = unary.expr;
                    continue;
                }
                NodeKind::Paren(inner) => {
                    id = *inner;
                    continue;
                }
            };
        }
    }

    /// The node inside any parentheses around `id`.
    pub fn unparenthesised(&self, mut id: NodeId) -> NodeId {
        while let NodeKind::Paren(inner) = self.node(id).kind {
            id = inner;
        }
        id
    }

    /// The number that a node stands for, if it is a literal (in parentheses or not).
    pub fn constant(&self, id: NodeId) -> Option<f64> {
        match &self.node(self.unparenthesised(id)).kind {
            NodeKind::Number(number) => Some(number.value),
            _ => None,
        }
    }

    /// Calls `visit` with the children of a node, from left to right.
    pub fn for_each_child(&self, id: NodeId, mut visit: impl FnMut(NodeId)) {
        match &self.node(id).kind {
            NodeKind::Number(_) | NodeKind::String(_) | NodeKind::Selector(_) | NodeKind::Range(_) => {}
            NodeKind::Subquery(subquery) => visit(subquery.expr),
            NodeKind::Call(call) => call.args.iter().copied().for_each(visit),
            NodeKind::Aggregate(aggregate) => {
                if let Some(param) = aggregate.param {
                    visit(param);
                }
                visit(aggregate.expr);
            }
            NodeKind::Binary(binary) => {
                visit(binary.lhs);
                visit(binary.rhs);
            }
            NodeKind::Unary(unary) => visit(unary.expr),
            NodeKind::Paren(inner) => visit(*inner),
        }
    }

    /// All selectors of the query, those of ranges too, in the order they are written.
    pub fn selectors(&self) -> impl Iterator<Item = &VectorSelector> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Selector(selector) => Some(selector),
            NodeKind::Range(range) => Some(&range.selector),
            _ => None,
        })
    }
}
