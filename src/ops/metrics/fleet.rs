//! What is counted of the other nodes.

use std::fmt;

use super::out::Out;
use crate::fleet::{Asked, FleetStats, Nodes};

pub(super) fn encode(stats: &FleetStats, out: &mut Out<'_>) -> fmt::Result {
    let Some(nodes) = stats.nodes() else { return Ok(()) };
    let Nodes { answering, silent, unasked, unnamed, with_room, load_percent } = nodes;
    let states = [("answering", answering), ("silent", silent), ("unasked", unasked), ("unnamed", unnamed)];
    let help = "The other nodes of [fleet], each asked every half a minute or more often: those that have answered when they were asked last, \
                those that have not, and those that have not been asked yet; and names of DNS, or hosts named there, that lead to none.";
    out.gauges("turnstone_fleet_nodes", help, "state", states)?;
    let asked = Asked::ALL.map(|asked| (asked.label(), stats.of(asked)));
    let help = "Questions to the nodes of [fleet] about how they are, by what came of them.";
    out.counters("turnstone_fleet_questions", help, "result", asked)?;
    let Some(load_percent) = load_percent else { return Ok(()) };
    let help = "Of a hundred parts of what this node takes before [redirect] fleet has it send newcomers to others. From 90 on it takes none of theirs.";
    out.gauge("turnstone_fleet_load_percent", help, load_percent)?;
    let help = "Other nodes that have just said that they have room for newcomers of this one.";
    out.gauge("turnstone_fleet_nodes_with_room", help, with_room)
}
