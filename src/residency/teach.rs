//! Plans of which the policy hears less than is planned, and later.

use super::Residency;
use super::plan::{Plan, check};
use crate::error::Result;
use crate::expert::Event;

impl Residency {
    /// As [`Self::plan`], but the policy is told of `taught` instead: of those tokens of the event that
    /// will stay. The others may be told later, with [`Self::teach`].
    pub fn plan_taught(&mut self, event: &Event, taught: &Event, plan: &mut Plan) -> Result<()> {
        check(&self.shape, event)?;
        check(&self.shape, taught)?;
        self.place(event, taught, plan);
        Ok(())
    }

    /// Tells the policy of tokens whose experts were planned without it.
    pub fn teach(&mut self, event: &Event) -> Result<()> {
        check(&self.shape, event)?;
        self.n_changes += 1;
        self.policy.route(event);
        Ok(())
    }
}
