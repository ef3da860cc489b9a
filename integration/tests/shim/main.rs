//! The shim's own life: what it does while no daemon looks, and what happens when it is exchanged or killed.

mod cgroup;
mod events;
mod growth;
mod logger;
mod slow_log;
mod survival;
mod upgrade;
