//! gossipsub as V6 uses it: what its defaults lose or slow down is set here, and nowhere else.
//!
//! Messages are anonymous on this level (`StrictNoSign`): every bundle and offer inside is signed by its author already, and
//! a second signature per hop would cost each node 50 µs per message and say nothing more. What can be trusted of a message
//! is therefore only which member passed it on; who wrote it is for the validation of its content to say.

use std::time::Duration;

use crdt::ids::MeshId;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, IdentityTransform, MaxCountSubscriptionFilter, Message, MessageAuthenticity,
    MessageId, TopicHash, TopicSubscriptionFilter, ValidationMode,
};

use super::limits::{
    GOSSIP_BYTES_MAX, GOSSIP_DUPLICATE_TIME, GOSSIP_ENVELOPE_BYTES, GOSSIP_QUEUE_DURATION, GOSSIP_QUEUE_MAX,
    GOSSIP_TELL_BYTES, GOSSIP_TOPICS_MAX,
};

/// gossipsub with the bound on topics.
pub(crate) type Gossip = Behaviour<IdentityTransform, MaxCountSubscriptionFilter<OurTopics>>;

/// Lets only topics of V6 be subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct OurTopics;

impl TopicSubscriptionFilter for OurTopics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        let name = topic.as_str();
        name.len() == topic_of(MeshId::ZERO).hash().as_str().len() && name.starts_with("/v6/")
    }
}

/// The topic of a mesh.
pub(crate) fn topic_of(mesh: MeshId) -> IdentTopic {
    IdentTopic::new(format!("/v6/{mesh}/1"))
}

/// A gossipsub that loses nothing of a burst of thousands of small messages.
pub(crate) fn behaviour() -> Gossip {
    let mut config = ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message: &Message| MessageId::from(&blake3::hash(&message.data).as_bytes()[..20]))
        .mesh_n(4)
        .mesh_n_low(3)
        .mesh_n_high(8)
        .mesh_outbound_min(1)
        .gossip_lazy(4)
        .idontwant_message_size_threshold(GOSSIP_TELL_BYTES)
        .flood_publish(false)
        .heartbeat_initial_delay(Duration::from_millis(200))
        .prune_backoff(Duration::from_secs(10))
        .history_length(12)
        .history_gossip(6)
        .duplicate_cache_time(GOSSIP_DUPLICATE_TIME)
        .max_transmit_size(GOSSIP_BYTES_MAX + GOSSIP_ENVELOPE_BYTES)
        .max_ihave_messages_heartbeat(64)
        .connection_handler_queue_len(GOSSIP_QUEUE_MAX)
        .publish_queue_duration(GOSSIP_QUEUE_DURATION)
        .forward_queue_duration(GOSSIP_QUEUE_DURATION);
    let config = config.build().expect("the constants above satisfy gossipsub's own checks");
    let filter = MaxCountSubscriptionFilter {
        filter: OurTopics,
        max_subscribed_topics: GOSSIP_TOPICS_MAX,
        max_subscriptions_per_request: 4 * GOSSIP_TOPICS_MAX,
    };
    Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .expect("anonymous messages and anonymous validation go together")
}
