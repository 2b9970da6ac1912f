//! A machine's states and transitions as a Mermaid diagram. Pure.
//!
//! What it is not: a layout. Mermaid draws; this only names what is declared.

use std::fmt::Write;

#[derive(Clone)]
pub(super) struct Diagram {
    pub(super) states: Vec<State>,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) name: &'static str,
    /// The machine ends where the body does.
    pub(super) is_final: bool,
    /// Label, and where it leads.
    pub(super) transitions: Vec<(String, usize)>,
    pub(super) inner: Option<Diagram>,
}

impl Diagram {
    pub(super) fn mermaid(&self) -> String {
        let mut text = "stateDiagram-v2\n".to_owned();
        self.write(&mut text, 1, "");
        text
    }

    /// Writes the states below `prefix`: names need be unique in their own machine only, identifiers in the diagram.
    fn write(&self, text: &mut String, depth: usize, prefix: &str) {
        let indent = "    ".repeat(depth);
        let ids: Vec<String> =
            self.states.iter().map(|state| format!("{prefix}{}", identifier(state.name))).collect();
        let line = |text: &mut String, content: &str| {
            let _ = writeln!(text, "{indent}{content}");
        };
        for (state, id) in self.states.iter().zip(&ids) {
            if state.name != id {
                line(text, &format!("state \"{}\" as {id}", label(state.name)));
            }
            if let Some(inner) = &state.inner {
                line(text, &format!("state {id} {{"));
                inner.write(text, depth + 1, &format!("{id}_"));
                line(text, "}");
            }
        }
        if let Some(first) = ids.first() {
            line(text, &format!("[*] --> {first}"));
        }
        for (state, id) in self.states.iter().zip(&ids) {
            for (trigger, to) in &state.transitions {
                match trigger.is_empty() {
                    true => line(text, &format!("{id} --> {}", ids[*to])),
                    false => line(text, &format!("{id} --> {} : {}", ids[*to], label(trigger))),
                }
            }
            if state.is_final {
                line(text, &format!("{id} --> [*]"));
            }
        }
    }
}

/// What Mermaid takes for an identifier.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Text that ends neither the label nor the line.
fn label(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '"' | ':' | ';' | '#' | '\n' | '\r') { ' ' } else { c }).collect()
}
