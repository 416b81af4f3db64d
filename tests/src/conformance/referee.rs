//! What holds in every conversation, whatever is checked in it: the order and number of settlements, and the marks.

use std::collections::VecDeque;

use serde_json::Value;

use super::peer::Said;

/// Watches one conversation.
#[derive(Default)]
pub struct Referee {
    /// Handed over and not settled, in order: id, and whether somebody waits.
    open: VecDeque<(u64, bool)>,
    settled: Vec<u64>,
    /// Not wanted any more, of those that were handed over.
    cancelled: Vec<u64>,
    is_ready: bool,
    is_attached: bool,
    stands_aside: bool,
}

impl Referee {
    /// Watches one that begins with `attach`.
    pub fn of_attached() -> Referee {
        Referee { is_attached: true, ..Referee::default() }
    }

    /// From here on nothing is judged: what was said to the worker was no message.
    pub fn stand_aside(&mut self) {
        self.stands_aside = true;
    }

    /// Whether nothing is judged.
    pub fn stands_aside(&self) -> bool {
        self.stands_aside
    }

    /// A task went to the worker.
    pub fn handed_over(&mut self, task: &Value) {
        let id = task["id"].as_u64().expect("the suite gives ids");
        self.open.push_back((id, task["wait"] == true));
    }

    /// The worker was told that nobody wants a task any more.
    pub fn cancelled(&mut self, id: u64) {
        self.cancelled.push(id);
    }

    /// A message came. The error says what it violates.
    pub fn heard(&mut self, said: &Said, begun: Option<u64>) -> Result<(), String> {
        if self.stands_aside {
            return Ok(());
        }
        let greeting = if self.is_attached { "attach" } else { "ready" };
        if !self.is_ready && said.kind != greeting {
            return Err(format!("a worker's first message is `{greeting}`, and it said `{}`", said.kind));
        }
        match said.kind.as_str() {
            kind @ ("ready" | "attach") if self.is_ready => {
                return Err(format!("`{greeting}` is said once, and it said `{kind}` after it"));
            }
            "ready" | "attach" => self.is_ready = true,
            "done" | "failed" | "dropped" => {
                let id = self.settles(said, begun)?;
                let (due, _) = self.open[0];
                if id != due {
                    return Err(format!("tasks are settled in order: {due} was due, and it settled {id}"));
                }
                self.open.pop_front();
                self.settled.push(id);
            }
            "done_all" => {
                let id = self.settles(said, begun)?;
                while self.open.front().is_some_and(|(open, _)| *open <= id) {
                    let (open, awaited) = self.open.pop_front().expect("was just seen");
                    if awaited {
                        return Err(format!(
                            "`done_all` up to {id} settles task {open}, for which somebody waits: its result is lost"
                        ));
                    }
                    self.settled.push(open);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The id of the task that it settles. To be dropped it must be cancelled, and not begun.
    fn settles(&self, said: &Said, begun: Option<u64>) -> Result<u64, String> {
        let id = said.field("id").as_u64().ok_or("it settles a task without an id")?;
        if self.settled.contains(&id) {
            return Err(format!("it settled task {id} twice"));
        }
        if !self.open.iter().any(|(open, _)| *open == id) {
            return Err(format!("it settled task {id}, which it was never handed"));
        }
        if said.kind == "dropped" {
            return match begun {
                _ if !self.cancelled.contains(&id) => Err(format!("it dropped task {id}, which was not cancelled")),
                Some(begun) if begun == id => {
                    Err(format!("it dropped task {id}, and its mark page says that it has begun it"))
                }
                _ => Ok(id),
            };
        }
        match begun {
            Some(begun) if begun < id => {
                Err(format!("it settled task {id}, and its mark page says that {begun} is the last it has begun"))
            }
            _ => Ok(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(kind: &str, id: u64) -> Said {
        Said { kind: kind.into(), fields: json!({ "id": id }) }
    }

    fn after(tasks: &[(u64, bool)]) -> Referee {
        let mut referee = Referee { is_ready: true, ..Referee::default() };
        for (id, wait) in tasks {
            referee.handed_over(&json!({ "id": id, "wait": wait }));
        }
        referee
    }

    #[test]
    fn each_violation_is_named() {
        let violated = |referee: &mut Referee, said: &Said, part: &str| {
            let error = referee.heard(said, None).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        violated(&mut Referee::default(), &said("done", 1), "first message is `ready`");
        violated(&mut Referee::of_attached(), &said("ready", 1), "first message is `attach`");
        violated(&mut after(&[]), &said("ready", 0), "once");
        violated(&mut after(&[(1, false)]), &said("done", 2), "never handed");
        violated(&mut after(&[(1, false), (2, false)]), &said("failed", 2), "1 was due");
        violated(&mut after(&[(1, false), (2, true)]), &said("done_all", 2), "somebody waits");
        let mut referee = after(&[(1, false), (2, false)]);
        referee.heard(&said("done_all", 2), None).unwrap();
        violated(&mut referee, &said("done", 1), "twice");
        let error = after(&[(5, true)]).heard(&said("done", 5), Some(4)).unwrap_err();
        assert!(error.contains("mark page"), "{error}");
        violated(&mut after(&[(1, false)]), &said("dropped", 1), "not cancelled");
        let mut referee = after(&[(5, true)]);
        referee.cancelled(5);
        let error = referee.heard(&said("dropped", 5), Some(5)).unwrap_err();
        assert!(error.contains("has begun it"), "{error}");
        referee.heard(&said("dropped", 5), Some(4)).unwrap();
    }
}
