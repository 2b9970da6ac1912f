//! Whether what is sent arrives: quinn-proto's congestion controller, and since when it has waited for a word in vain.
//!
//! A path can pass small probes and carry nothing: a router that drops long packets, a firewall that has taken against
//! QUIC. That the peer acknowledges what we sent is the only proof, and the controller is who is told of it.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Makes controllers of quinn-proto's default kind that watch.
pub(super) struct Watching;

/// See the module.
struct Watched {
    cubic: Box<dyn Controller>,
    waiting_since: Option<Instant>,
}

impl ControllerFactory for Watching {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::new(CubicConfig::default()).build(now, mtu);
        Box::new(Watched { cubic, waiting_since: None })
    }
}

/// Since when packets have been sent and nothing was acknowledged. They may all have been acknowledgements themselves, which
/// nobody acknowledges: who suspects something sends a PING and asks again.
pub(super) fn waiting_since(controller: &dyn Controller) -> Option<Instant> {
    let watched = controller.clone_box().into_any().downcast::<Watched>();
    watched.ok().and_then(|watched| watched.waiting_since)
}

impl Controller for Watched {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.waiting_since.get_or_insert(now);
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.waiting_since = None;
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        // Of what else is on its way, some may have been sent just now.
        self.waiting_since = (in_flight > 0).then_some(now);
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Watched { cubic: self.cubic.clone_box(), waiting_since: self.waiting_since })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
