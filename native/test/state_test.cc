// Export and fetch of shared state between engines, and the ways in which a fetch fails.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "cluster.h"
#include "fake_peer.h"
#include "hash/xxh3.h"
#include "state/state_wire.h"

namespace pccl::test {
namespace {

std::vector<double> random_doubles(std::size_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<double> values(count);
  for (double& value : values) value = std::bit_cast<double>(random());
  return values;
}

std::uint64_t bytes_of(const std::vector<double>& values) { return values.size() * sizeof(double); }

TEST(Hash, IsCanonicalXxh3) {
  // What the xxhsum tool of the xxHash project prints for no input.
  std::atomic<bool> stop = false;
  EXPECT_EQ(to_hex(*xxh3_128("", 0, stop)), "99aa06d3014798d86001c324468d497f");
  // In pieces or at once, it is the same.
  const auto values = random_doubles(700'000, 1);
  const auto whole = *xxh3_128(values.data(), bytes_of(values), stop);
  stop = true;
  EXPECT_FALSE(xxh3_128(values.data(), bytes_of(values), stop));
  EXPECT_NE(to_hex(whole), to_hex(Hash128{}));
}

class State : public testing::Test {
 protected:
  OpId export_all() {
    const auto op =
        cluster_[0].export_state({{"big", big_.data(), bytes_of(big_)}, {"small", small_.data(), bytes_of(small_)}});
    EXPECT_FALSE(op.second.get().error);
    hashes_ = cluster_[0].engine->hashes(op.first);
    return op.first;
  }

  Cluster cluster_{2};
  std::vector<double> big_ = random_doubles(1'500'000, 2);
  std::vector<double> small_ = random_doubles(3, 3);
  std::vector<Hash128> hashes_;
};

TEST_F(State, IsFetchedByNameAndHash) {
  const OpId id = export_all();
  std::vector<double> big(big_.size()), small(small_.size());
  const auto fetch =
      cluster_[1].fetch_state(cluster_[0].member(), {
                                                        {"small", hashes_[1], small.data(), bytes_of(small)},
                                                        {"big", hashes_[0], big.data(), bytes_of(big)},
                                                    });
  const OpResult result = fetch.second.get();
  ASSERT_FALSE(result.error) << result.error->message;
  EXPECT_EQ(result.rx_bytes, bytes_of(big) + bytes_of(small));
  EXPECT_EQ(std::memcmp(big.data(), big_.data(), bytes_of(big)), 0);
  EXPECT_EQ(std::memcmp(small.data(), small_.data(), bytes_of(small)), 0);
  EXPECT_EQ(cluster_[0].engine->release_state(id), result.rx_bytes);
  EXPECT_THROW(cluster_[0].engine->release_state(id), EngineError);
}

TEST_F(State, RefusesAnotherHashAnotherNameAndWhatIsReleased) {
  const OpId id = export_all();
  std::vector<double> small(small_.size());
  const auto fails = [&](const std::string& name, const Hash128& hash) {
    const auto fetch = cluster_[1].fetch_state(cluster_[0].member(), {{name, hash, small.data(), bytes_of(small)}});
    const auto error = fetch.second.get().error;
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::state_fetch_failed);
    EXPECT_EQ(error->peer, cluster_[0].id);
    EXPECT_NE(error->message.find(name), std::string::npos) << error->message;
  };
  fails("small", hashes_[0]);
  fails("unknown", hashes_[1]);
  EXPECT_EQ(cluster_[0].engine->release_state(id), 0u);
  fails("small", hashes_[1]);
}

TEST_F(State, OpsGoOnWhileStateIsServed) {
  const OpId id = export_all();
  std::vector<double> big(big_.size());
  const auto fetch = cluster_[1].fetch_state(cluster_[0].member(), {{"big", hashes_[0], big.data(), bytes_of(big)}});
  for (int i = 0; i < 20; ++i) {
    std::vector<float> a(1000, 1), b(1000, 2);
    const auto first = cluster_[0].all_reduce({a.data(), a.data(), 1000, DType::f32, ReduceOp::sum, 0});
    const auto second = cluster_[1].all_reduce({b.data(), b.data(), 1000, DType::f32, ReduceOp::sum, 0});
    ASSERT_FALSE(first.second.get().error);
    ASSERT_FALSE(second.second.get().error);
    ASSERT_EQ(b[999], 3.0f);
  }
  EXPECT_FALSE(fetch.second.get().error);
  cluster_[0].engine->release_state(id);
}

// A release in the middle of a transfer ends it: afterwards the memory may be written.
TEST_F(State, ReleaseEndsTransfers) {
  const OpId id = export_all();
  std::vector<double> big(big_.size());
  std::vector<PendingOp> fetches;
  fetches.push_back(cluster_[1].fetch_state(cluster_[0].member(), {{"big", hashes_[0], big.data(), bytes_of(big)}}));
  const std::uint64_t served = cluster_[0].engine->release_state(id);
  big_.assign(big_.size(), 0);
  const OpResult result = fetches[0].second.get();
  EXPECT_EQ(result.error.has_value(), served < bytes_of(big));
  if (!result.error) {
    EXPECT_EQ(result.rx_bytes, served);
  }
}

TEST_F(State, SourceThatDiesOrIsGoneFailsTheFetch) {
  export_all();
  const Member source = cluster_[0].member();
  std::vector<double> big(big_.size());
  const FetchTensor tensor{"big", hashes_[0], big.data(), bytes_of(big)};
  const auto during = cluster_[1].fetch_state(source, {tensor});
  cluster_[0].engine->close();
  const auto outcome = during.second.get();
  if (outcome.error) {
    EXPECT_EQ(outcome.error->code, ErrorCode::state_fetch_failed);
  }
  const auto after = cluster_[1].fetch_state(source, {tensor});
  EXPECT_EQ(after.second.get().error->code, ErrorCode::state_fetch_failed);
}

// The source says one hash and sends other bytes.
TEST_F(State, BytesAreVerified) {
  FakePeer liar(1);
  std::vector<double> small(3);
  const auto fetch = cluster_[1].fetch_state(liar.member(), {{"small", Hash128{1}, small.data(), bytes_of(small)}});
  const Hello hello = liar.accept_link();
  EXPECT_EQ(hello.kind, ConnectionKind::state);
  EXPECT_EQ(hello.from, cluster_[1].id);
  const auto reply = state_wire::encode_reply({state_wire::Status::found, bytes_of(small)});
  std::vector<std::uint8_t> bytes(reply.begin(), reply.end());
  bytes.resize(bytes.size() + bytes_of(small), 7);
  liar.send_raw(bytes);
  const auto error = fetch.second.get().error;
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::state_fetch_failed);
  EXPECT_NE(error->message.find("hash"), std::string::npos);
}

TEST_F(State, CloseEndsExportsAndFetches) {
  FakePeer silent(1);
  std::vector<double> small(3);
  const auto fetch = cluster_[1].fetch_state(silent.member(), {{"small", Hash128{1}, small.data(), bytes_of(small)}});
  std::vector<double> huge(8'000'000);
  const auto exported = cluster_[1].export_state({{"huge", huge.data(), bytes_of(huge)}});
  cluster_[1].engine->close();
  EXPECT_EQ(fetch.second.get().error->code, ErrorCode::closed);
  const auto result = exported.second.get();
  if (result.error) {
    EXPECT_EQ(result.error->code, ErrorCode::closed);
  }
}

TEST_F(State, ReleaseBeforeTheHashes) {
  std::vector<double> huge(8'000'000);
  const auto exported = cluster_[0].export_state({{"huge", huge.data(), bytes_of(huge)}});
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
