//! The parser and the engine behind one function, for whoever throws bytes at them: the target in `fuzz/` and
//! the seeded driver in `tests/fuzz.rs`. Not for other callers.

use crate::ast::{prettify, to_json};
use crate::engine::{Engine, EngineOptions, QueryOptions};
use crate::parser::parse;
use std::time::Duration;

/// Samples that an evaluation may hold.
const SAMPLES_MAX: usize = 10_000;

/// Reads a query, prints it, and evaluates it over nothing. Must neither panic nor run away, whatever the
/// bytes are.
///
/// # Errors
/// If a query that was read does not print as one that reads the same.
pub fn query(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let Ok(expr) = parse(&text) else { return Ok(()) };
    let printed = expr.to_string();
    let again = parse(&printed).map_err(|error| format!("{text:?} prints as {printed:?}: {error}"))?;
    if again.to_string() != printed {
        return Err(format!("{text:?} prints as {printed:?}, which prints as {:?}", again.to_string()));
    }
    let laid_out = prettify(&expr);
    parse(&laid_out).map_err(|error| format!("{text:?} is laid out as {laid_out:?}: {error}"))?;
    to_json(&expr);
    let engine = Engine::new(EngineOptions {
        max_samples: SAMPLES_MAX,
        timeout: Duration::from_secs(1),
        ..EngineOptions::default()
    });
    // Whether there is an answer is up to the query.
    let _ = engine.instant_expr(&(), &expr, 1_600_000_000_000, &QueryOptions::default());
    let _ = engine.range_expr(&(), &expr, 0, 100_000, 10_000, &QueryOptions::default());
    Ok(())
}
