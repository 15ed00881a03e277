// Calls that are refused before anything changes.
#include <gtest/gtest.h>

#include "cluster.h"

namespace pccl::test {
namespace {

template <typename F>
std::optional<ErrorCode> refusal(F call) {
  try {
    call();
  } catch (const EngineError& error) {
    EXPECT_FALSE(error.error().message.empty());
    return error.error().code;
  }
  return std::nullopt;
}

class Arguments : public testing::Test {
 protected:
  std::optional<ErrorCode> refused(const AllReduce& call) {
    return refusal([&] { ops_.push_back(cluster_[0].all_reduce(call)); });
  }

  std::vector<float> a_ = std::vector<float>(64), b_ = std::vector<float>(64);
  std::vector<PendingOp> ops_;
  Cluster cluster_{2};  // goes first: ops in flight use the rest
};

TEST_F(Arguments, BadBuffersAndCounts) {
  const auto bad = ErrorCode::invalid_argument;
  EXPECT_EQ(refused({nullptr, a_.data(), 1}), bad);
  EXPECT_EQ(refused({a_.data(), nullptr, 1}), bad);
  EXPECT_EQ(refused({a_.data(), b_.data(), 0}), bad);
  EXPECT_EQ(refused({a_.data(), b_.data(), UINT64_MAX / 2}), bad);
  EXPECT_EQ(refused({a_.data(), a_.data() + 1, 8}), bad);
  EXPECT_EQ(refused({reinterpret_cast<char*>(a_.data()) + 2, b_.data(), 8}), bad);
  EXPECT_EQ(refused({a_.data(), b_.data(), 8, static_cast<DType>(12)}), bad);
  EXPECT_EQ(refused({a_.data(), b_.data(), 8, DType::f32, static_cast<ReduceOp>(9)}), bad);
}

TEST(EngineOptions, OutOfRange) {
  const auto refused = [](std::uint32_t connections, std::uint32_t ops) {
    return refusal([&] { Engine::create({.connections_per_peer = connections, .ops_in_flight_max = ops}); });
  };
  for (const auto& [connections, ops] : {std::pair{65u, 1u}, {1u, 0u}, {1u, 257u}}) {
    EXPECT_EQ(refused(connections, ops), ErrorCode::invalid_argument);
  }
  EXPECT_FALSE(refused(64, 256));
  EXPECT_FALSE(refused(0, 256));
}

TEST(EngineOptions, ACongestionControlThatTheSystemHasnt) {
  try {
    Engine::create({.congestion_control = "no-such-control"});
    FAIL();
  } catch (const EngineError& error) {
    EXPECT_EQ(error.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(error.error().message.find("this system has"), std::string::npos) << error.error().message;
  }
  // Reno is in every kernel, and everybody may use it.
  EXPECT_NO_THROW(Engine::create({.congestion_control = "reno"})->close());
}

TEST_F(Arguments, BuffersAndTagsInUse) {
  ASSERT_FALSE(refused({a_.data(), b_.data(), 32, DType::f32, ReduceOp::sum, 1}));
  EXPECT_EQ(refused({a_.data() + 40, b_.data() + 40, 8, DType::f32, ReduceOp::sum, 1}), ErrorCode::tag_in_use);
  EXPECT_EQ(refused({a_.data() + 31, a_.data() + 31, 8, DType::f32, ReduceOp::sum, 2}), ErrorCode::buffer_in_use);
  EXPECT_EQ(refused({b_.data() + 40, b_.data(), 8, DType::f32, ReduceOp::sum, 2}), ErrorCode::buffer_in_use);
  EXPECT_EQ(refusal([&] { cluster_[0].export_state({{"b", b_.data(), 4}}); }), ErrorCode::buffer_in_use);
  ASSERT_FALSE(refused({a_.data() + 32, b_.data() + 32, 8, DType::f32, ReduceOp::sum, 2}));
  // What is over is free.
  EXPECT_TRUE(cluster_[0].engine->cancel(ops_[0].first));
  ops_[0].second.get();
  EXPECT_FALSE(refused({a_.data(), a_.data(), 32, DType::f32, ReduceOp::sum, 1}));
}

TEST_F(Arguments, ExportsMayBeReadButNotWritten) {
  const auto exported = cluster_[0].export_state({{"a", a_.data(), 256}});
  EXPECT_FALSE(refusal([&] { cluster_[0].export_state({{"again", a_.data(), 128}}); }));
  EXPECT_FALSE(exported.second.get().error);
  EXPECT_EQ(refused({a_.data(), a_.data(), 8}), ErrorCode::buffer_in_use);
}

TEST_F(Arguments, TooManyOps) {
  std::vector<std::vector<float>> data(17, std::vector<float>(4));
  for (std::uint64_t tag = 0; tag < 16; ++tag) {
    ASSERT_FALSE(refused({data[tag].data(), data[tag].data(), 4, DType::f32, ReduceOp::sum, tag}));
  }
  EXPECT_EQ(refused({data[16].data(), data[16].data(), 4, DType::f32, ReduceOp::sum, 16}), ErrorCode::too_many_ops);
  cluster_[0].engine->close();
  for (const auto& [id, result] : ops_) EXPECT_EQ(result.get().error->code, ErrorCode::closed);
}

TEST_F(Arguments, BadStateCalls) {
  const auto bad = ErrorCode::invalid_argument;
  const Member source = cluster_[1].member();
  EXPECT_EQ(refusal([&] { cluster_[0].export_state({}); }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].export_state({{"", a_.data(), 4}}); }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].export_state({{std::string(5000, 'n'), a_.data(), 4}}); }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].export_state({{"a", nullptr, 4}}); }), bad);
  const auto exported = cluster_[0].export_state({{"a", a_.data(), 256}, {"none", nullptr, 0}});
  ASSERT_FALSE(exported.second.get().error);
  const StateFetchCall good{.export_id = exported.first, .targets = {{0, {}}}, .sources = {{source}}};
  const auto refused = [&](const std::function<void(StateFetchCall&)>& edit) {
    StateFetchCall call = good;
    edit(call);
    return refusal([&] { cluster_[0].fetch_state(call); });
  };
  EXPECT_EQ(refused([](auto& call) { call.targets.clear(); }), bad);
  EXPECT_EQ(refused([](auto& call) { call.targets = {{2, {}}}; }), bad);
  EXPECT_EQ(refused([](auto& call) { call.targets = {{1, {}}}; }), bad);
  EXPECT_EQ(refused([](auto& call) { call.targets = {{0, {}}, {0, {}}}; }), bad);
  EXPECT_EQ(refused([](auto& call) { call.sources.clear(); }), bad);
  EXPECT_EQ(refused([](auto& call) { call.sources.resize(65, call.sources[0]); }), bad);
  EXPECT_EQ(refused([](auto& call) { call.sources[0].member = {1, "", 0}; }), bad);
  EXPECT_EQ(refused([](auto& call) { call.share = 1; }), bad);
  EXPECT_EQ(refused([](auto& call) { call.export_id = 1234; }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].commit_state(1234); }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].engine->changed_tensor(1234); }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].engine->hashes(1234); }), bad);
  EXPECT_EQ(refusal([&] { cluster_[0].engine->release_state(1234); }), bad);
}

TEST(ArgumentsEarly, NothingIsInstalledYet) {
  const auto engine = Engine::create({});
  EXPECT_FALSE(engine->view());
  float value = 0;
  EXPECT_EQ(refusal([&] { engine->start(AllReduce{&value, &value, 1}.call(), nullptr); }), ErrorCode::not_installed);
  EXPECT_EQ(refusal([&] {
              engine->fetch_state({.export_id = 1, .targets = {{0, {}}}, .sources = {{{1, "127.0.0.1", 9}}}}, nullptr);
            }),
            ErrorCode::not_installed);
  EXPECT_FALSE(engine->cancel(1));
  EXPECT_EQ(refusal([&] { Engine::create({.host = "127.0.0.1", .port = engine->port()}); }), ErrorCode::io);
  EXPECT_EQ(refusal([&] { Engine::create({.host = "not an address", .port = 0}); }), ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace pccl::test
