// Export, fetch and commit of shared state between engines, and the ways in which a fetch fails or goes on.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "cluster.h"
#include "fake_peer.h"
#include "hash/hash_tree.h"
#include "state/state_wire.h"

namespace pccl::test {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes random_bytes(std::size_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

Hash128 tree_root(const Bytes& bytes) {
  std::vector<Hash128> leaves;
  for (std::size_t at = 0; at < bytes.size(); at += limits::state_leaf_bytes) {
    leaves.push_back(xxh3_128(bytes.data() + at, std::min(limits::state_leaf_bytes, bytes.size() - at)));
  }
  return root_of(leaves);
}

// Tensors of one peer, exported.
struct Exported {
  Peer& peer;
  std::vector<Bytes> tensors;
  OpId id = 0;
  std::vector<Hash128> roots;

  Exported(Peer& of, std::vector<Bytes> what) : peer(of), tensors(std::move(what)) { again(); }

  void again() {
    std::vector<ExportTensor> list;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      list.push_back({"tensor " + std::to_string(i), tensors[i].data(), tensors[i].size()});
    }
    const auto op = peer.export_state(list);
    EXPECT_FALSE(op.second.get().error);
    id = op.first;
    roots = peer.engine->hashes(id);
  }

  // What it takes to become as `other` is.
  StateFetchCall call(const Exported& other, std::vector<StateSource> sources) const {
    StateFetchCall wanted{.export_id = id, .targets = {}, .sources = std::move(sources)};
    for (std::uint32_t i = 0; i < roots.size(); ++i) {
      if (roots[i] != other.roots[i]) wanted.targets.push_back({i, other.roots[i]});
    }
    return wanted;
  }
  OpResult fetch(const StateFetchCall& wanted) const { return peer.fetch_state(wanted).second.get(); }
  OpResult commit() const { return peer.commit_state(id).second.get(); }
};

std::vector<StateSource> from(std::initializer_list<Peer*> peers) {
  std::vector<StateSource> sources;
  for (const Peer* peer : peers) sources.push_back({.member = peer->member()});
  return sources;
}

TEST(Hash, IsCanonicalXxh3) {
  // What the xxhsum tool of the xxHash project prints for no input.
  EXPECT_EQ(to_hex(xxh3_128("", 0)), "99aa06d3014798d86001c324468d497f");
}

TEST(Hash, ATreeHasLeavesOf64Kib) {
  Cluster cluster(1);
  const std::size_t leaf = limits::state_leaf_bytes;
  std::vector<Bytes> tensors;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, leaf - 1, leaf, leaf + 1, 40 * leaf, 100 * leaf + 7}) {
    tensors.push_back(random_bytes(size, static_cast<unsigned>(size)));
  }
  const Exported exported(cluster[0], tensors);
  for (std::size_t i = 0; i < tensors.size(); ++i) EXPECT_EQ(exported.roots[i], tree_root(tensors[i])) << i;
}

class State : public testing::Test {
 protected:
  Cluster cluster_{3};
  std::vector<Bytes> content_ = {random_bytes(12'000'001, 2), random_bytes(24, 3), Bytes{}, random_bytes(65536, 4)};
};

TEST_F(State, IsFetchedVerifiedAndCommitted) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  const OpResult result = sink.fetch(sink.call(source, from({&cluster_[0]})));
  ASSERT_FALSE(result.error) << result.error->message;
  EXPECT_GE(result.rx_bytes, 12'000'001u + 24 + 65536);
  EXPECT_EQ(result.sources, std::vector<PeerId>{cluster_[0].id});
  // Nothing changes before the commit.
  EXPECT_EQ(sink.tensors[0], Bytes(12'000'001));
  EXPECT_FALSE(sink.commit().error);
  EXPECT_EQ(sink.tensors, content_);
  EXPECT_GE(cluster_[0].engine->release_state(source.id), 12'000'001u + 24 + 65536);
  EXPECT_THROW(cluster_[0].engine->release_state(source.id), EngineError);
  EXPECT_THROW(cluster_[1].engine->release_state(sink.id), EngineError);
}

TEST_F(State, OnlyLeavesThatDifferMove) {
  Exported source(cluster_[0], content_);
  std::vector<Bytes> other = content_;
  other[0][5] ^= 1;
  other[0][11'999'999] ^= 1;
  Exported sink(cluster_[1], other);
  const OpResult result = sink.fetch(sink.call(source, from({&cluster_[0]})));
  ASSERT_FALSE(result.error) << result.error->message;
  const std::uint64_t hashes = leaf_count(12'000'001) * sizeof(Hash128);
  const std::uint64_t leaves = limits::state_leaf_bytes + 12'000'001 % limits::state_leaf_bytes;
  EXPECT_GE(result.rx_bytes, leaves + hashes);
  EXPECT_LE(result.rx_bytes, leaves + hashes + 500);
  EXPECT_FALSE(sink.commit().error);
  EXPECT_EQ(sink.tensors, content_);
}

// Each of two sources has one tensor that the other one doesn't have.
TEST_F(State, ComesFromAllSources) {
  const Bytes left = random_bytes(3'000'000, 10), right = random_bytes(2'000'000, 11);
  Exported first(cluster_[0], {left, Bytes(2'000'000)}), second(cluster_[1], {Bytes(3'000'000), right});
  Exported sink(cluster_[2], {Bytes(3'000'000, 1), Bytes(2'000'000, 1)});
  const StateFetchCall call{.export_id = sink.id,
                            .targets = {{0, first.roots[0]}, {1, second.roots[1]}},
                            .sources = from({&cluster_[0], &cluster_[1]})};
  const OpResult result = sink.fetch(call);
  ASSERT_FALSE(result.error) << result.error->message;
  EXPECT_EQ(result.sources, (std::vector<PeerId>{cluster_[0].id, cluster_[1].id}));
  EXPECT_FALSE(sink.commit().error);
  EXPECT_EQ(sink.tensors, (std::vector<Bytes>{left, right}));
  EXPECT_GE(cluster_[0].engine->release_state(first.id), left.size());
  EXPECT_GE(cluster_[1].engine->release_state(second.id), right.size());
}

// Tensors that lie side by side in one array, of lengths that nothing is aligned to.
TEST_F(State, TensorsMayBePartsOfOneArray) {
  const Bytes whole = random_bytes(300'000, 8);
  Bytes copy(whole.size());
  const auto parts_of = [](Bytes& bytes) {
    return std::vector<ExportTensor>{{"a", bytes.data(), 5}, {"b", bytes.data() + 5, 8}, {"c", bytes.data() + 13, 299'987}};
  };
  Bytes given = whole;
  const auto source = cluster_[0].export_state(parts_of(given));
  const auto sink = cluster_[1].export_state(parts_of(copy));
  ASSERT_FALSE(source.second.get().error);
  ASSERT_FALSE(sink.second.get().error);
  const auto roots = cluster_[0].engine->hashes(source.first);
  StateFetchCall call{.export_id = sink.first, .targets = {}, .sources = from({&cluster_[0]})};
  for (std::uint32_t i = 0; i < 3; ++i) call.targets.push_back({i, roots[i]});
  ASSERT_FALSE(cluster_[1].fetch_state(call).second.get().error);
  ASSERT_FALSE(cluster_[1].commit_state(sink.first).second.get().error);
  EXPECT_EQ(copy, whole);
}

// One of the sources has other content for a tensor, or is gone: the other one gives it all.
TEST_F(State, GoesOnWithoutASourceThatDoesntKnowOrIsGone) {
  Exported first(cluster_[0], content_);
  Exported other(cluster_[1], {random_bytes(12'000'001, 9), content_[1], Bytes{}, content_[3]});
  Exported sink(cluster_[2], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  StateSource gone{.member = cluster_[1].member()};
  gone.member.id = 77;
  auto sources = from({&cluster_[1], &cluster_[0]});
  sources.push_back(gone);
  const OpResult result = sink.fetch(sink.call(first, sources));
  ASSERT_FALSE(result.error) << result.error->message;
  EXPECT_FALSE(sink.commit().error);
  EXPECT_EQ(sink.tensors, content_);
}

TEST_F(State, FailsWhenNobodyKnowsTheContent) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  const auto wanted = sink.call(source, from({&cluster_[0]}));
  cluster_[0].engine->release_state(source.id);
  const OpResult result = sink.fetch(wanted);
  ASSERT_TRUE(result.error);
  EXPECT_EQ(result.error->code, ErrorCode::state_fetch_failed);
  EXPECT_EQ(result.error->peer, cluster_[0].id);
  EXPECT_LT(result.seconds, 9);  // before its patience ends
  cluster_[1].engine->release_state(sink.id);
  EXPECT_EQ(sink.tensors[0], Bytes(12'000'001));
}

TEST_F(State, OpsGoOnWhileStateIsServed) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  const auto fetch = cluster_[1].fetch_state(sink.call(source, from({&cluster_[0]})));
  for (int i = 0; i < 20; ++i) {
    std::vector<std::vector<float>> data(3, std::vector<float>(1000, 1));
    std::vector<PendingOp> ops;
    for (std::size_t rank = 0; rank < 3; ++rank) {
      ops.push_back(cluster_[rank].all_reduce({data[rank].data(), data[rank].data(), 1000, DType::f32, ReduceOp::sum, 0}));
    }
    for (const auto& op : ops) ASSERT_FALSE(op.second.get().error);
    ASSERT_EQ(data[1][999], 3.0f);
  }
  EXPECT_FALSE(fetch.second.get().error);
}

// A release in the middle of a transfer ends it: afterwards the memory may be written.
TEST_F(State, ReleaseEndsTransfersAndFetches) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  const auto fetch = cluster_[1].fetch_state(sink.call(source, from({&cluster_[0]})));
  EXPECT_THROW(cluster_[1].engine->commit_state(sink.id, nullptr), EngineError);
  cluster_[0].engine->release_state(source.id);
  source.tensors[0].assign(12'000'001, 0);
  cluster_[1].engine->release_state(sink.id);
  const auto error = fetch.second.get().error;
  const bool expected = !error || error->code == ErrorCode::cancelled || error->code == ErrorCode::state_fetch_failed;
  EXPECT_TRUE(expected) << error->message;
}

// A source that dies in the middle is replaced, and what has come stays: both together send it once.
TEST_F(State, ASourceThatDiesIsReplaced) {
  const std::size_t size = 48'000'000;
  const Bytes big = random_bytes(size, 5);
  Exported first(cluster_[0], {big}), second(cluster_[1], {big});
  Exported sink(cluster_[2], {Bytes(size)});
  const auto fetch = cluster_[2].fetch_state(sink.call(first, from({&cluster_[0], &cluster_[1]})));
  cluster_[0].engine->close();
  const OpResult result = fetch.second.get();
  ASSERT_FALSE(result.error) << result.error->message;
  EXPECT_LE(result.rx_bytes, size + size / 2);
  EXPECT_FALSE(sink.commit().error);
  EXPECT_EQ(sink.tensors[0], big);
}

// What a failed fetch has got needn't come again.
TEST_F(State, ATransferThatWasCutOffIsResumed) {
  const std::size_t size = 4'000'000, half = 2'031'616;
  const Bytes whole = random_bytes(size, 6);
  Exported source(cluster_[0], {whole});
  Exported sink(cluster_[1], {Bytes(size)});
  const auto wanted = sink.call(source, from({&cluster_[0]}));
  cluster_[0].engine->release_state(source.id);
  // Who has half of it gives that half, and says that it doesn't have the rest.
  Bytes part(size);
  std::copy_n(whole.begin(), half, part.begin());
  Exported partial(cluster_[2], {part});
  FakePeer never(9);
  StateSource nobody{.member = never.member()};
  auto half_call = partial.call(source, {nobody});
  auto tree_source = Exported(cluster_[0], {whole});
  half_call.sources = from({&cluster_[0]});
  const auto filling = cluster_[2].fetch_state(half_call);
  ASSERT_FALSE(filling.second.get().error);
  // The first fetch gets all but is released before the commit.
  ASSERT_FALSE(sink.fetch(wanted).error);
  cluster_[1].engine->release_state(sink.id);
  EXPECT_EQ(sink.tensors[0], Bytes(size));
  sink.again();
  const OpResult resumed = sink.fetch(sink.call(tree_source, from({&cluster_[0]})));
  ASSERT_FALSE(resumed.error);
  EXPECT_LT(resumed.rx_bytes, 10'000u);
  EXPECT_FALSE(sink.commit().error);
  EXPECT_EQ(sink.tensors[0], whole);
}

// Three that fetch at once from one give each other what they have.
TEST_F(State, ThoseWhoFetchFeedEachOther) {
  Cluster cluster(4, {}, nullptr, TransportMode::tcp);
  const std::size_t size = 40'000'000;
  const Bytes whole = random_bytes(size, 7);
  Exported source(cluster[0], {whole});
  std::vector<std::unique_ptr<Exported>> sinks;
  std::vector<PendingOp> fetches;
  for (std::uint32_t i = 0; i < 3; ++i) sinks.push_back(std::make_unique<Exported>(cluster[i + 1], std::vector<Bytes>{Bytes(size)}));
  for (std::uint32_t i = 0; i < 3; ++i) {
    auto call = sinks[i]->call(source, from({&cluster[0]}));
    for (std::uint32_t other = 0; other < 3; ++other) {
      if (other != i) call.sources.push_back({.member = cluster[other + 1].member(), .complete = false});
    }
    call.share = i;
    call.shares = 3;
    fetches.push_back(cluster[i + 1].fetch_state(call));
  }
  for (const auto& fetch : fetches) {
    const OpResult result = fetch.second.get();
    ASSERT_FALSE(result.error) << result.error->message;
    EXPECT_FALSE(result.sources.empty());
  }
  for (const auto& sink : sinks) {
    EXPECT_FALSE(sink->commit().error);
    EXPECT_EQ(sink->tensors[0], whole);
  }
  EXPECT_GE(cluster[0].engine->release_state(source.id), size);
}

// The tensor is written to while it is shown: nobody takes its bytes, and the one who wrote finds out.
TEST_F(State, BytesThatChangedAreFoundOut) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  source.tensors[3][100] ^= 1;
  const OpResult result = sink.fetch(sink.call(source, from({&cluster_[0]})));
  ASSERT_TRUE(result.error);
  EXPECT_EQ(result.error->code, ErrorCode::state_fetch_failed);
  EXPECT_NE(result.error->message.find("tensor 3"), std::string::npos) << result.error->message;
  for (int i = 0; i < 1000 && cluster_[0].engine->changed_tensor(source.id).empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(cluster_[0].engine->changed_tensor(source.id), "tensor 3");
}

TEST_F(State, SourceThatIsGoneFailsTheFetch) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  const auto wanted = sink.call(source, from({&cluster_[0]}));
  cluster_[0].engine->close();
  EXPECT_EQ(sink.fetch(wanted).error->code, ErrorCode::state_fetch_failed);
}

// The source says one hash and sends other bytes.
TEST_F(State, BytesAreVerified) {
  FakePeer liar(1);
  Bytes small(24);
  Exported sink(cluster_[1], {small});
  // Dialled where the view says: at the first peer's port.
  cluster_[0].engine->close();
  const auto fetch = cluster_[1].fetch_state({.export_id = sink.id,
                                              .targets = {{0, Hash128{1}}},
                                              .sources = {{.member = cluster_[0].member()}}});
  const auto error = fetch.second.get().error;
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::state_fetch_failed);
}

TEST_F(State, CloseEndsExportsAndFetches) {
  Exported source(cluster_[0], content_);
  Exported sink(cluster_[1], {Bytes(12'000'001), Bytes(24), Bytes{}, Bytes(65536)});
  const auto fetch = cluster_[1].fetch_state(sink.call(source, from({&cluster_[0]})));
  Bytes huge(64'000'000);
  const auto exported = cluster_[1].export_state({{"huge", huge.data(), huge.size()}});
  cluster_[1].engine->close();
  for (const auto& result : {fetch.second.get(), exported.second.get()}) {
    EXPECT_TRUE(!result.error || result.error->code == ErrorCode::closed) << result.error->message;
  }
}

TEST_F(State, ReleaseBeforeTheHashes) {
  std::vector<double> huge(8'000'000);
  const auto exported = cluster_[0].export_state({{"huge", huge.data(), huge.size() * sizeof(double)}});
  EXPECT_EQ(cluster_[0].engine->release_state(exported.first), 0u);
  const auto result = exported.second.get();
  if (result.error) {
    EXPECT_EQ(result.error->code, ErrorCode::cancelled);
  }
  // Its memory is free again.
  const auto op = cluster_[0].all_reduce({huge.data(), huge.data(), 10, DType::f64, ReduceOp::sum, 0});
  cluster_[0].engine->cancel(op.first);
  EXPECT_EQ(op.second.get().error->code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace pccl::test
