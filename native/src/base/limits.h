// Every bound of the engine, so that no peer and no caller can make it use more than can be told beforehand.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace pccl::limits {

using namespace std::chrono_literals;

inline constexpr std::uint32_t ops_in_flight_max = 256;
inline constexpr std::uint32_t connections_per_peer_max = 64;
// The most that a link takes by itself.
inline constexpr std::uint32_t adaptive_connections_max = 32;
inline constexpr std::uint32_t silence_ms_min = 500;
inline constexpr std::uint32_t silence_ms_max = 600'000;
inline constexpr std::size_t group_size_max = 65536;
// Groups of up to so many link everybody with everybody.
inline constexpr std::uint32_t fully_linked_max = 16;
// Ops posted, or withdrawn again, while no epoch is open.
inline constexpr std::size_t waiting_ops_max = 4096;
// What is remembered of ops that other members have posted and this one hasn't yet.
inline constexpr std::size_t early_ops_max = 4096;
inline constexpr std::size_t early_frames_max = 16384;
// A tag costs a counter until the epoch ends.
inline constexpr std::size_t tags_per_epoch_max = std::size_t{1} << 20;
inline constexpr std::size_t settled_reports_max = 4096;

// A member that hasn't called an op for this long after this peer has is reported.
inline constexpr auto stalled_after = 1000ms;

// Part of the wire format: both ends cut a slice into chunks of this size. docs/decisions has the measurement.
inline constexpr std::uint32_t chunk_bytes = 512 * 1024;
// What an op can have its `ready` carry, which everybody takes in before the op is called here too: so much per member
// and op in flight, and no more.
inline constexpr std::size_t ready_payload_bytes_max = 32 * 1024 + 128;
inline constexpr std::size_t early_payload_bytes_max =
    (fully_linked_max - 1) * ops_in_flight_max * ready_payload_bytes_max;
// Payload that a lane reads, or writes, before others have their turn.
inline constexpr std::size_t link_turn_bytes = 512 * 1024;
// Each of the two of a lane in shared memory, which has no other memory but a page. docs/decisions has the measurement.
// What an op copies from another process's memory before all else has its turn; and what it combines at once, for
// which the copy, the own contribution and the result fit into a core's second cache.
inline constexpr std::size_t direct_copy_bytes = 1024 * 1024;
inline constexpr std::size_t direct_piece_bytes = 256 * 1024;
inline constexpr std::size_t shm_ring_bytes = 512 * 1024;
// What the system may hold of a lane over TCP beyond what is on its way: what has been written can't go over another
// lane, and what is urgent waits behind it. On a machine, and in a local network, there is no such limit.
inline constexpr int lane_unsent_bytes_max = 512 * 1024;
// Of an op that its caller's thread drives.
inline constexpr std::size_t driven_bytes_max = 64 * 1024;
// Numbered frames that a peer leaves unacknowledged before its link counts as broken.
inline constexpr std::size_t link_frames_unacknowledged_max = 16384;
// Chunks that a lane remembers; it sends no more until the peer has acknowledged some.
inline constexpr std::size_t lane_chunks_unacknowledged_max = 16384;
// A receiver acknowledges that often, and whenever it has been silent.
inline constexpr std::uint64_t chunks_per_ack = 16;
inline constexpr std::uint64_t frames_per_ack = 32;
inline constexpr std::size_t payload_bytes_per_ack = 64 * 1024;  // of numbered frames

// Connections that have not yet shown who they are.
inline constexpr std::size_t strangers_max = 128;
inline constexpr auto hello_timeout = 5000ms;
// A peer that prepared before us may dial before we know its view.
inline constexpr auto early_hello_timeout = 10000ms;
inline constexpr auto dial_attempt_timeout = 5000ms;
inline constexpr auto redial_attempt_timeout_min = 500ms;
// What the peer with the greater id leaves the other one before it dials for a new link too.
inline constexpr auto dial_head_start = 200ms;
inline constexpr auto dial_retry_delay_min = 20ms;
inline constexpr auto dial_retry_delay_max = 500ms;
// Sent bytes without an acknowledgement, or a receive window that stays closed, for this long break a connection
// that is no lane yet, or none at all; lanes go by their view's silence.
inline constexpr auto unacknowledged_timeout = 10000ms;

// Connections forwarded between others, and what each holds per direction.
inline constexpr std::size_t relay_connections_max = 512;
inline constexpr std::size_t relay_buffer_bytes = 64 * 1024;

inline constexpr std::size_t tensor_name_bytes_max = 4096;
inline constexpr std::size_t state_tensors_max = std::size_t{1} << 20;
// Part of the format: what the hashes of shared state are about, and what of it is sent and verified as a whole.
inline constexpr std::size_t state_leaf_bytes = 64 * 1024;
inline constexpr std::size_t hashing_threads_max = 16;
// Leaves that a thread hashes before it takes others.
inline constexpr std::uint64_t hashing_batch_leaves = 32;

// Connections that an export is read over, and how long each may ask for nothing, or not go on with what it began.
inline constexpr std::size_t state_readers_max = 64;
inline constexpr auto state_idle_timeout = 60000ms;
inline constexpr auto state_progress_timeout = 10000ms;
// For a fetch that has no source left but those that fetch as well.
inline constexpr auto state_orphan_timeout = 3000ms;
// What one request can be for: hashes, and leaves.
inline constexpr std::uint32_t state_request_hashes_max = 65536;
inline constexpr std::uint32_t state_request_leaves_max = 16;
// What a fetch has asked one source for and not got yet: by its speed, within these bounds.
inline constexpr std::uint64_t state_window_bytes_min = 1024 * 1024;
inline constexpr std::uint64_t state_window_bytes_max = 64 * 1024 * 1024;
inline constexpr std::size_t state_sources_max = 64;
// A source that broke is tried again so often, with these pauses between.
inline constexpr std::uint32_t state_source_attempts = 4;
inline constexpr auto state_source_pause_min = 50ms;
// How often a source that fetches itself is asked what it has got.
inline constexpr auto state_poll_interval = 50ms;
// Connections of a probe where links find out by themselves how many they need. A connection that isn't made by then is
// done without; how long a probe measures at most; and how long the other side puts up with it, and with how many.
inline constexpr std::uint32_t probe_connections = 8;
inline constexpr auto probe_dial_timeout = 3000ms;
inline constexpr auto probe_time_max = 2000ms;
inline constexpr auto probe_visit_max = 10000ms;
inline constexpr std::size_t probe_visitors_max = 256;


}  // namespace pccl::limits
