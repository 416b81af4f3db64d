//! Goes through all states of a configuration, in the order of how often time was made to pass, then of how many
//! steps lead there: so the first violation has the shortest path of its kind.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::act::{Act, Step};
use super::books::Failure;
use super::config::{Config, Setup};
use super::world::World;

/// How a configuration is gone through.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The core's respawn gate is broken on purpose: the checks must see it.
    pub broken_gate: bool,
    /// The proof that the key leaves nothing out that matters: of one in so many states that were found a second time,
    /// what follows is compared with what follows the state that was found first. 0 is none.
    pub prove_key: u64,
    /// A configuration that has more states than this is not small.
    pub states_max: usize,
}

/// What was gone through, without a violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Different ones.
    pub states: u64,
    /// Steps from one of them to the next.
    pub transitions: u64,
    /// States in which nothing more happens by itself.
    pub ends: u64,
    /// The most steps that lead to a state.
    pub depth: u32,
    /// States found again whose future was compared.
    pub proved: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { states, transitions, ends, depth, proved } = self;
        write!(f, "{states} states, {transitions} transitions, {ends} ends, {depth} steps deep, {proved} compared")
    }
}

/// A rule that does not hold, and how that comes about.
#[derive(Clone, Debug)]
pub struct Violation {
    /// In which world.
    pub config: &'static str,
    /// Which, in a word.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
    /// One step per line, with what the core was told and commanded.
    pub path: Vec<String>,
    /// How many steps lead there.
    pub steps: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { config, rule, detail, path, steps } = self;
        write!(f, "{config}: [{rule}] {detail}\nafter {steps} steps:\n{}", path.join("\n"))
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u128")
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// No state.
const NONE: u32 = u32::MAX;

struct Search {
    setup: Arc<Setup>,
    settings: Settings,
    found: HashMap<u128, u32, BuildHasherDefault<AsItIs>>,
    /// Of each state: from which other it was reached first, and how.
    parents: Vec<(u32, Option<Step>)>,
    /// Of each state: where it comes if everybody is calm; itself at the end.
    calm: Vec<u32>,
    /// Of each state: what follows, as a hash.
    futures: Vec<u64>,
    /// To be gone through, by how often time was made to pass and how many steps lead there.
    waiting: BTreeMap<(u8, u32), Vec<(u32, World)>>,
    again: Vec<(u32, World)>,
    count: Count,
}

/// Goes through all states of a configuration.
pub fn enumerate(config: &'static Config, settings: Settings) -> Result<Count, Box<Violation>> {
    let setup = Arc::new(Setup::new(config));
    let world = World::new(setup.clone(), settings.broken_gate);
    let mut search = Search {
        setup,
        settings,
        found: HashMap::default(),
        parents: vec![(NONE, None)],
        calm: vec![NONE],
        futures: vec![0],
        waiting: BTreeMap::new(),
        again: Vec::new(),
        count: Count::default(),
    };
    search.found.insert(world.key(), 0);
    search.waiting.insert((0, 0), vec![(0, world)]);
    search.run()?;
    Ok(search.count)
}

impl Search {
    fn run(&mut self) -> Result<(), Box<Violation>> {
        while let Some(((ticks, depth), states)) = self.waiting.pop_first() {
            self.count.depth = self.count.depth.max(depth);
            for (state, world) in states {
                self.go_on(ticks, depth, state, world)?;
                if self.parents.len() > self.settings.states_max {
                    let detail = format!("more than {} states: it goes on for ever", self.settings.states_max);
                    return Err(self.violation(self.parents.len() as u32 - 1, None, ("bound", detail)));
                }
            }
        }
        self.count.states = self.parents.len() as u64;
        self.see_that_all_end()?;
        self.compare_futures()
    }

    fn go_on(&mut self, ticks: u8, depth: u32, state: u32, world: World) -> Result<(), Box<Violation>> {
        let acts = world.acts();
        // Time that passes while nothing else can happen is not counted.
        let alone = acts.first().is_none_or(|act| *act == Act::Tick || act.is_optional());
        if acts.first().is_none_or(|act| act.is_optional()) {
            self.calm[state as usize] = state;
            self.count.ends += 1;
            world.check_end().map_err(|failure| self.violation(state, None, failure))?;
        }
        let mut future = 0;
        for (step, key, next) in self.successors(state, &world)? {
            future = join(future, key);
            let counts = step.act == Act::Tick && !alone;
            if counts && ticks == self.setup.config.ticks {
                continue;
            }
            self.count.transitions += 1;
            let index = self.reached(state, step, key, next, (ticks + u8::from(counts), depth + 1));
            // The first is what happens if everybody is calm.
            if self.calm[state as usize] == NONE {
                self.calm[state as usize] = index;
            }
        }
        self.futures[state as usize] = future;
        Ok(())
    }

    fn successors(&self, state: u32, world: &World) -> Result<Vec<(Step, u128, World)>, Box<Violation>> {
        let mut successors = Vec::new();
        for act in world.acts() {
            let step = Step { act, spawn_fails: false };
            let (key, next) = self.take(state, world, step)?;
            let could_fail = next.could_fail();
            successors.push((step, key, next));
            if could_fail {
                let step = Step { act, spawn_fails: true };
                let (key, next) = self.take(state, world, step)?;
                successors.push((step, key, next));
            }
        }
        Ok(successors)
    }

    /// A panic of the core is a violation like any other.
    fn take(&self, state: u32, world: &World, step: Step) -> Result<(u128, World), Box<Violation>> {
        let taken = catch_unwind(AssertUnwindSafe(|| world.after(step).map(|next| (next.key(), next))));
        taken
            .unwrap_or_else(|panic| Err(("panic", words(&*panic))))
            .map_err(|failure| self.violation(state, Some(step), failure))
    }

    fn reached(&mut self, from: u32, step: Step, key: u128, next: World, place: (u8, u32)) -> u32 {
        let new = self.parents.len() as u32;
        let index = *self.found.entry(key).or_insert(new);
        if index == new {
            self.parents.push((from, Some(step)));
            self.calm.push(NONE);
            self.futures.push(0);
            self.waiting.entry(place).or_default().push((index, next));
        } else if self.settings.prove_key > 0 && self.count.transitions.is_multiple_of(self.settings.prove_key) {
            self.again.push((index, next));
        }
        index
    }

    /// From every state the end is reached, if everybody is calm from there on.
    fn see_that_all_end(&self) -> Result<(), Box<Violation>> {
        let mut ends = vec![false; self.calm.len()];
        let mut on_the_way = vec![NONE; self.calm.len()];
        for start in 0..self.calm.len() as u32 {
            let mut way = Vec::new();
            let mut at = start;
            while !ends[at as usize] {
                if on_the_way[at as usize] == start {
                    return Err(self.violation(at, None, ("liveness", "from here on it goes round for ever".into())));
                }
                on_the_way[at as usize] = start;
                way.push(at);
                let next = self.calm[at as usize];
                if next == at {
                    break;
                }
                at = next;
            }
            for state in way {
                ends[state as usize] = true;
            }
        }
        Ok(())
    }

    fn compare_futures(&mut self) -> Result<(), Box<Violation>> {
        for (state, world) in std::mem::take(&mut self.again) {
            let future = self.successors(state, &world)?.iter().fold(0, |future, (_, key, _)| join(future, *key));
            self.count.proved += 1;
            if future != self.futures[state as usize] {
                let detail = "two states that count as the same have different futures".into();
                return Err(self.violation(state, None, ("key", detail)));
            }
        }
        Ok(())
    }

    // ---- telling ------------------------------------------------------------------------------

    fn violation(&self, state: u32, last: Option<Step>, (rule, detail): Failure) -> Box<Violation> {
        let mut steps: Vec<Step> = last.into_iter().collect();
        let mut at = state;
        while let (from, Some(step)) = self.parents[at as usize] {
            steps.push(step);
            at = from;
        }
        steps.reverse();
        let mut world = World::new(self.setup.clone(), self.settings.broken_gate);
        world.log = Some(Vec::new());
        for step in &steps {
            if !matches!(catch_unwind(AssertUnwindSafe(|| world.take(*step))), Ok(Ok(()))) {
                break;
            }
        }
        let path = world.log.take().unwrap_or_default();
        Box::new(Violation { config: self.setup.config.name, rule, detail, path, steps: steps.len() })
    }
}

fn join(future: u64, key: u128) -> u64 {
    (future.rotate_left(7) ^ key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    text.unwrap_or_else(|| "without a text".into())
}
