//! Tokens into a tree of nodes.

use super::lexer::{self, Kind, Token};
use super::{Definitions, TemplateError};

/// Nesting of control structures and parentheses.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action { line: usize, pipeline: Pipeline },
    If { line: usize, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    With { line: usize, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Range { line: usize, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Template { line: usize, name: String, data: Option<Pipeline> },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// `$x :=`, `$x =` or `$i, $x :=`.
    pub(super) variables: Vec<String>,
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    /// `(pipeline).a.b`
    Nested(Box<Pipeline>, Vec<String>),
    Function(String),
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) body: Vec<Node>,
    pub(super) definitions: Definitions,
}

pub(super) fn parse(text: &str) -> Result<Parsed, TemplateError> {
    let tokens = lexer::tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0, definitions: Definitions::new() };
    let (body, end) = parser.list(true)?;
    match end {
        Stop::TextEnd => Ok(Parsed { body, definitions: parser.definitions }),
        _ => parser.fault("unexpected {{end}} or {{else}}"),
    }
}

/// What ended a list of nodes.
enum Stop {
    TextEnd,
    End,
    Else,
    ElseIf,
    ElseWith,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    loops: usize,
    definitions: Definitions,
}

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    fn next(&mut self) -> Option<Kind> {
        let kind = self.tokens.get(self.at).map(|token| token.kind.clone());
        self.at += 1;
        kind
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line(), message))
    }

    fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth >= DEPTH_MAX {
            return self.fault(format!("nested deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        let outcome = parse(self);
        self.depth -= 1;
        outcome
    }

    /// Nodes up to `{{end}}`, `{{else}}` or the end of the text.
    fn list(&mut self, top: bool) -> Result<(Vec<Node>, Stop), TemplateError> {
        self.deeper(|parser| parser.list_inner(top))
    }

    fn list_inner(&mut self, top: bool) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let line = self.line();
            match self.next() {
                None if top => return Ok((nodes, Stop::TextEnd)),
                None => return self.fault("unexpected end of the template: an {{end}} is missing"),
                Some(Kind::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => {
                    let keyword = match self.peek() {
                        Some(Kind::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match keyword.as_str() {
                        "end" => {
                            self.at += 1;
                            self.close()?;
                            return Ok((nodes, Stop::End));
                        }
                        "else" => {
                            self.at += 1;
                            let next = match self.peek() {
                                Some(Kind::Word(word)) => word.clone(),
                                _ => String::new(),
                            };
                            let end = match next.as_str() {
                                "if" => Stop::ElseIf,
                                "with" => Stop::ElseWith,
                                _ => Stop::Else,
                            };
                            match end {
                                Stop::Else => self.close()?,
                                _ => self.at += 1,
                            }
                            return Ok((nodes, end));
                        }
                        _ => nodes.extend(self.statement(&keyword, line)?),
                    }
                }
            }
        }
    }

    fn statement(&mut self, keyword: &str, line: usize) -> Result<Option<Node>, TemplateError> {
        match keyword {
            "if" | "with" | "range" => {
                self.at += 1;
                self.control(keyword, line).map(Some)
            }
            "define" => {
                self.at += 1;
                let name = self.name()?;
                self.close()?;
                let body = self.body_to_end()?;
                self.definitions.insert(name, body.into());
                Ok(None)
            }
            "block" => {
                self.at += 1;
                let name = self.name()?;
                let data = self.pipeline()?;
                self.close()?;
                let body = self.body_to_end()?;
                self.definitions.insert(name.clone(), body.into());
                Ok(Some(Node::Template { line, name, data: Some(data) }))
            }
            "template" => {
                self.at += 1;
                let name = self.name()?;
                let data = match self.peek() {
                    Some(Kind::Close) => None,
                    _ => Some(self.pipeline()?),
                };
                self.close()?;
                Ok(Some(Node::Template { line, name, data }))
            }
            "break" | "continue" => {
                self.at += 1;
                self.close()?;
                if self.loops == 0 {
                    return self.fault(format!("{{{{{keyword}}}}} outside of {{{{range}}}}"));
                }
                Ok(Some(if keyword == "break" { Node::Break } else { Node::Continue }))
            }
            _ => {
                let pipeline = self.pipeline()?;
                self.close()?;
                Ok(Some(Node::Action { line, pipeline }))
            }
        }
    }

    fn control(&mut self, keyword: &str, line: usize) -> Result<Node, TemplateError> {
        let pipeline = self.pipeline()?;
        self.close()?;
        let in_loop = usize::from(keyword == "range");
        self.loops += in_loop;
        let parsed = self.list(false);
        self.loops -= in_loop;
        let (body, end) = parsed?;
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Else => self.body_to_end()?,
            Stop::ElseIf if keyword == "if" => vec![self.deeper(|parser| parser.control("if", line))?],
            Stop::ElseWith if keyword == "with" => vec![self.deeper(|parser| parser.control("with", line))?],
            Stop::ElseIf if keyword == "with" => vec![self.deeper(|parser| parser.control("if", line))?],
            _ => return self.fault("misplaced {{else}}"),
        };
        Ok(match keyword {
            "if" => Node::If { line, pipeline, body, otherwise },
            "with" => Node::With { line, pipeline, body, otherwise },
            _ => Node::Range { line, pipeline, body, otherwise },
        })
    }

    fn body_to_end(&mut self) -> Result<Vec<Node>, TemplateError> {
        match self.list(false)? {
            (body, Stop::End) => Ok(body),
            _ => self.fault("expected {{end}}"),
        }
    }

    fn name(&mut self) -> Result<String, TemplateError> {
        match self.next() {
            Some(Kind::String(name)) => Ok(name),
            _ => {
                self.at -= 1;
                self.fault("expected the template's name in quotes")
            }
        }
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        match self.peek() {
            Some(Kind::Close) => {
                self.at += 1;
                Ok(())
            }
            _ => self.fault("unexpected text before }}"),
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        self.deeper(Parser::pipeline_inner)
    }

    fn pipeline_inner(&mut self) -> Result<Pipeline, TemplateError> {
        let (variables, declares) = self.variables();
        let mut commands = vec![self.command()?];
        while matches!(self.peek(), Some(Kind::Pipe)) {
            self.at += 1;
            commands.push(self.command()?);
        }
        Ok(Pipeline { variables, declares, commands })
    }

    fn variables(&mut self) -> (Vec<String>, bool) {
        let kinds: Vec<&Kind> = self.tokens[self.at..].iter().take(4).map(|token| &token.kind).collect();
        let (variables, declares, length) = match kinds.as_slice() {
            [Kind::Variable(x), Kind::Declare, ..] => (vec![x.clone()], true, 2),
            [Kind::Variable(x), Kind::Assign, ..] => (vec![x.clone()], false, 2),
            [Kind::Variable(x), Kind::Comma, Kind::Variable(y), Kind::Declare] => {
                (vec![x.clone(), y.clone()], true, 4)
            }
            [Kind::Variable(x), Kind::Comma, Kind::Variable(y), Kind::Assign] => {
                (vec![x.clone(), y.clone()], false, 4)
            }
            _ => return (Vec::new(), false),
        };
        self.at += length;
        (variables, declares)
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut operands: Vec<Operand> = Vec::new();
        loop {
            match self.peek() {
                Some(Kind::Close | Kind::Pipe | Kind::ParenClose) => break,
                None => return self.fault("unclosed action"),
                Some(_) => {}
            }
            let spaced = self.tokens.get(self.at).is_some_and(|token| token.spaced);
            if !operands.is_empty() && !spaced && !matches!(self.peek(), Some(Kind::ParenOpen)) {
                return self.fault("arguments must be separated by a space");
            }
            operands.push(self.operand()?);
        }
        if operands.is_empty() {
            return self.fault("missing value for command");
        }
        Ok(Command { operands })
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let operand = match self.next() {
            Some(Kind::Dot) => Operand::Dot,
            Some(Kind::Field(first)) => Operand::Field(self.fields(vec![first])),
            Some(Kind::Variable(name)) => Operand::Variable(name, self.fields(Vec::new())),
            Some(Kind::String(text)) => Operand::String(text),
            Some(Kind::Int(number)) => Operand::Int(number),
            Some(Kind::Float(number)) => Operand::Float(number),
            Some(Kind::Word(word)) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                _ => Operand::Function(word),
            },
            Some(Kind::ParenOpen) => {
                let pipeline = self.pipeline()?;
                match self.next() {
                    Some(Kind::ParenClose) => Operand::Nested(Box::new(pipeline), self.fields(Vec::new())),
                    _ => return self.fault("unclosed left parenthesis"),
                }
            }
            _ => {
                self.at -= 1;
                return self.fault("unexpected token in an action");
            }
        };
        Ok(operand)
    }

    fn fields(&mut self, mut fields: Vec<String>) -> Vec<String> {
        while let Some(Token { kind: Kind::Field(name), spaced: false, .. }) = self.tokens.get(self.at) {
            fields.push(name.clone());
            self.at += 1;
        }
        fields
    }
}

/// Calls `visit` with the name of every function a body calls.
pub(super) fn visit_functions(nodes: &[Node], visit: &mut impl FnMut(&str)) {
    visit_nodes(nodes, &mut |node| {
        let pipeline = match node {
            Node::Action { pipeline, .. }
            | Node::If { pipeline, .. }
            | Node::With { pipeline, .. }
            | Node::Range { pipeline, .. } => Some(pipeline),
            Node::Template { data, .. } => data.as_ref(),
            Node::Text(_) | Node::Break | Node::Continue => None,
        };
        if let Some(pipeline) = pipeline {
            visit_pipeline(pipeline, visit);
        }
    });
}

/// Calls `visit` with the name of every template a body calls.
pub(super) fn visit_templates(nodes: &[Node], visit: &mut impl FnMut(&str)) {
    visit_nodes(nodes, &mut |node| {
        if let Node::Template { name, .. } = node {
            visit(name);
        }
    });
}

fn visit_nodes(nodes: &[Node], visit: &mut dyn FnMut(&Node)) {
    for node in nodes {
        visit(node);
        if let Node::If { body, otherwise, .. }
        | Node::With { body, otherwise, .. }
        | Node::Range { body, otherwise, .. } = node
        {
            visit_nodes(body, visit);
            visit_nodes(otherwise, visit);
        }
    }
}

fn visit_pipeline(pipeline: &Pipeline, visit: &mut impl FnMut(&str)) {
    for operand in pipeline.commands.iter().flat_map(|command| &command.operands) {
        match operand {
            Operand::Function(name) => visit(name),
            Operand::Nested(inner, _) => visit_pipeline(inner, visit),
            _ => {}
        }
    }
}
