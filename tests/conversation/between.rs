//! What goes from one server of a world to the other when a mobile client comes back there.

use turnstone::turn::{Client, MoveOrder, Outcome, Parcel};

use super::{Answer, Reply, World};

impl World {
    /// Passes a request on to the other server, as a worker does, and has that one's answer.
    pub fn pass_on(&mut self, client: Client, bytes: &[u8]) -> Answer {
        let from = self.relays.side as u16;
        self.other_side();
        let mut reply = Vec::new();
        let outcome = self.server.handle_passed_on(self.now, &client, Some(from), bytes, &mut self.relays, &mut reply);
        let pending = self.server.pending_move(&client.five_tuple);
        let owner = self.relays.side as u16;
        self.other_side();
        match pending {
            Some(id) => self.server.expect(self.now, client.five_tuple, id, owner),
            None => self.server.expect_no_more(&client.five_tuple),
        }
        self.follow_orders();
        match outcome {
            Outcome::Reply => Answer::Reply(Reply::read(reply)),
            Outcome::Dropped(dropped) => Answer::Dropped(dropped),
            other => panic!("{other:?} of a request that was passed on"),
        }
    }

    /// Does what the servers want of each other.
    pub fn follow_orders(&mut self) {
        for _ in 0..2 {
            while let Some(order) = self.server.poll_move() {
                match order {
                    MoveOrder::HandOver { id, five_tuple, to } => {
                        assert_ne!(usize::from(to), self.relays.side);
                        let (client, parcel) = self.server.take_out_for(self.now, id, &five_tuple).expect("it is here");
                        self.arrive(client, parcel);
                        self.other_side();
                    }
                    MoveOrder::Forget { five_tuple, at } => {
                        assert_ne!(usize::from(at), self.relays.side);
                        self.other_side();
                        self.server.expect_no_more(&five_tuple);
                        self.other_side();
                    }
                    MoveOrder::Cancel { five_tuple, at } => {
                        let by = self.relays.side as u16;
                        assert_ne!(at, by);
                        self.other_side();
                        self.server.cancel_move(&five_tuple, by);
                        self.other_side();
                    }
                    other => panic!("{other:?}"),
                }
            }
            self.other_side();
        }
    }

    /// Puts a parcel into the other server, whose turn it is then.
    pub fn arrive(&mut self, client: Client, parcel: Parcel) {
        self.other_side();
        self.put_in(parcel, client).unwrap();
    }
}
