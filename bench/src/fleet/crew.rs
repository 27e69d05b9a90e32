//! The clients of a fleet: a few for each member, which ask that member only.
//!
//! So a write is acknowledged whenever any member can have one written, and what a client cannot reach never hides what
//! another one can.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::recorded::{Manner, Shared, client, connect};

/// Clients that come and go with the members.
pub(crate) struct Crew {
    pub(crate) shared: Arc<Shared>,
    /// Members whose word on the past is taken: those that serve and are not away.
    pub(crate) present: Arc<Mutex<Vec<String>>>,
    clients_per_member: usize,
    rest: Duration,
    seed: u64,
    made: usize,
    /// What ends the clients of a member, by its URL.
    ends: BTreeMap<String, Arc<AtomicBool>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crew {
    pub(crate) fn new(clients_per_member: usize, rest: Duration, seed: u64) -> Self {
        Self {
            shared: Shared::new(),
            present: Arc::default(),
            clients_per_member,
            rest,
            seed,
            made: 0,
            ends: BTreeMap::new(),
            tasks: Vec::new(),
        }
    }

    /// Clients begin to ask a member.
    pub(crate) fn attach(&mut self, url: &str) -> Result<(), String> {
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..self.clients_per_member {
            let manner = Manner {
                number: self.made,
                seed: self.seed,
                rest: self.rest,
                is_over: Arc::clone(&is_over),
            };
            self.made += 1;
            let members = vec![connect(url)?];
            let work = client(Arc::clone(&self.shared), manner, members);
            self.tasks.push(tokio::spawn(work));
        }
        let earlier = self.ends.insert(url.to_string(), is_over);
        assert!(earlier.is_none(), "a member has its clients once");
        Ok(())
    }

    /// The clients of a member end after what they have asked.
    pub(crate) fn detach(&mut self, url: &str) {
        if let Some(is_over) = self.ends.remove(url) {
            is_over.store(true, Ordering::Relaxed);
        }
    }

    /// Ends all clients and waits for them.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        for is_over in std::mem::take(&mut self.ends).into_values() {
            is_over.store(true, Ordering::Relaxed);
        }
        for task in self.tasks.drain(..) {
            task.await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
