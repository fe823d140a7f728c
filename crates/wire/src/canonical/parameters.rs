//! Decides which of the caller's parameters an endpoint gets to see, and remembers the rest.

use smallvec::SmallVec;

use crate::target::Target;

/// Hands out parameters by name; what the endpoint or the dialect cannot take is noted, never an error.
pub(crate) struct Parameters<'t> {
    supports: &'t dyn Fn(&str) -> bool,
    rejected: &'t [String],
    dropped: SmallVec<[&'static str; 4]>,
}

impl<'t> Parameters<'t> {
    /// Nothing is dropped yet.
    pub(crate) fn new(target: &Target<'t>) -> Parameters<'t> {
        Parameters { supports: target.supports, rejected: &target.provider.quirks.rejects, dropped: SmallVec::new() }
    }

    /// `value` if the endpoint supports the parameter.
    pub(crate) fn take<T>(&mut self, name: &'static str, value: Option<T>) -> Option<T> {
        let value = value?;
        if self.supports(name) {
            return Some(value);
        }
        self.drop(name);
        None
    }

    /// [`Parameters::take`], except that the parameter is also lost when `excluded` by the rest of the request.
    pub(crate) fn take_unless<T>(&mut self, excluded: bool, name: &'static str, value: Option<T>) -> Option<T> {
        if excluded {
            self.drop_given(name, &value);
            return None;
        }
        self.take(name, value)
    }

    /// Notes a parameter that cannot be sent.
    pub(crate) fn drop(&mut self, name: &'static str) {
        if !self.dropped.contains(&name) {
            self.dropped.push(name);
        }
    }

    /// Notes a parameter that this dialect has no word for, if the caller gave it.
    pub(crate) fn drop_given<T>(&mut self, name: &'static str, value: &Option<T>) {
        if value.is_some() {
            self.drop(name);
        }
    }

    /// Whether the endpoint supports the parameter.
    pub(crate) fn supports(&self, name: &str) -> bool {
        (self.supports)(name) && !self.rejected.iter().any(|rejected| rejected == name)
    }

    /// The names for [`UpstreamRequest::dropped`](crate::UpstreamRequest::dropped).
    pub(crate) fn into_dropped(self) -> SmallVec<[&'static str; 4]> {
        self.dropped
    }
}
