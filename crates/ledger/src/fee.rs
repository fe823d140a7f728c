//! What an organisation pays on top of what its answers cost.

use crate::charge::Charge;
use crate::money::Money;

/// Parts per million that are added to a cost. Nothing unless set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fee {
    /// Added to the cost of answers from the mesh's own accounts: 50 000 is five per cent.
    pub markup_ppm: u32,
    /// Taken, as a part of the list price, for answers from the caller's own account at a provider, whose price the provider bills itself.
    pub own_key_ppm: u32,
}

/// What one generation takes from its caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Toll {
    /// The part that is the fee.
    pub fee: Money,
    /// All of it: cost and fee, or the fee alone when the provider bills the caller itself.
    pub charged: Money,
}

impl Fee {
    /// What a generation of this cost takes. The fee is rounded to the nearest pico-dollar; a free answer has none.
    pub fn on(&self, charge: &Charge, own_key: bool) -> Toll {
        if own_key {
            let fee = charge.total.share_ppm(self.own_key_ppm);
            return Toll { fee, charged: fee };
        }
        let fee = charge.total.share_ppm(self.markup_ppm);
        Toll { fee, charged: charge.total + fee }
    }

    /// The most that a request whose list price is `estimate` can take, whichever account serves it.
    pub fn most(&self, estimate: Money) -> Money {
        let charge = Charge { total: estimate, ..Charge::default() };
        self.on(&charge, false).charged.max(self.on(&charge, true).charged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(picodollars: i128) -> Charge {
        Charge { total: Money::from_picodollars(picodollars), ..Charge::default() }
    }

    #[test]
    fn five_per_cent_on_ours_and_the_fee_alone_on_theirs() {
        let fee = Fee { markup_ppm: 50_000, own_key_ppm: 10_000 };
        let ours = fee.on(&cost(2_000_000), false);
        assert_eq!((ours.fee.picodollars(), ours.charged.picodollars()), (100_000, 2_100_000));
        let theirs = fee.on(&cost(2_000_000), true);
        assert_eq!((theirs.fee.picodollars(), theirs.charged.picodollars()), (20_000, 20_000));
        assert_eq!(fee.on(&cost(0), false), Toll::default());
        assert_eq!(Fee::default().on(&cost(7), false).charged.picodollars(), 7);
    }

    proptest! {
        #[test]
        fn the_bound_holds_for_both_accounts(total in 0i128..1_000_000_000_000_000, markup_ppm in 0u32..3_000_000, own_key_ppm in 0u32..3_000_000) {
            let fee = Fee { markup_ppm, own_key_ppm };
            for own_key in [false, true] {
                let toll = fee.on(&cost(total), own_key);
                prop_assert!(toll.charged <= fee.most(Money::from_picodollars(total)));
                prop_assert!(toll.fee <= toll.charged);
            }
        }
    }
}
