#include "collective/op_errors.h"

#include "base/collectives.h"
#include "base/dtype.h"
#include "base/quantization.h"

namespace pccl {
namespace {

// "u8 (zero point, blocks of 256, rounded stochastically, NaN passes)"
std::string describe(const Quantization& quantization) {
  std::string text = quantized_format_name(quantization.format);
  const bool is_cast_only = is_cast(quantization.format);
  std::string options;
  const auto add = [&](const std::string& option) { options.append(options.empty() ? " (" : ", ").append(option); };
  if (quantization.scheme == QuantizationScheme::zero_point) add("zero point");
  if (!is_cast_only) add("blocks of " + std::to_string(quantization.block));
  if (quantization.rounding == QuantizationRounding::stochastic) add("rounded stochastically");
  if (quantization.pass_non_finite) add("NaN passes");
  return text + options + (options.empty() ? "" : ")");
}

// "all_reduce (sum) of 10 f32 as u8 (blocks of 256)", "gather of 10 f32 to peer 3"
std::string describe(const Descriptor& descriptor) {
  const CollectiveTraits& kind = traits(descriptor.kind);
  std::string text = kind.name;
  if (descriptor.kind == Collective::barrier) return text;
  if (kind.reduces) text.append(" (").append(reduce_op_name(descriptor.op)).append(")");
  const bool pair_by_pair = descriptor.kind == Collective::all_to_all;
  if (!pair_by_pair || descriptor.count > 0) text += " of " + std::to_string(descriptor.count);
  text.append(" ").append(dtype_name(descriptor.dtype));
  if (kind.has_root) text += " with root " + std::to_string(descriptor.root);
  if (descriptor.quantization.format != QuantizedFormat::none) text += " as " + describe(descriptor.quantization);
  return text;
}

}  // namespace

std::string op_name(const CollectiveCall& call) {
  const CollectiveTraits& kind = traits(call.kind);
  std::string name = kind.name;
  if (kind.of_two) {
    name += (call.kind == Collective::send ? " to peer " : " from peer ") + std::to_string(call.peer);
  }
  return name + " with tag " + std::to_string(call.tag);
}

std::string op_name(const CollectiveCall& call, const OpKey& key, Epoch view_epoch) {
  return op_name(call) + " (number " + std::to_string(key.seq) + " in epoch " + std::to_string(view_epoch) + ")";
}

std::string peer_names(const std::vector<PeerId>& peers) {
  std::string names;
  for (const PeerId peer : peers) names += (names.empty() ? "peer " : " and peer ") + std::to_string(peer);
  return names;
}

Error abort_error(const std::string& name, const AbortReason& reason) {
  const std::string origin = "peer " + std::to_string(reason.origin);
  if (reason.code == ErrorCode::call_mismatch) {
    return {reason.code, name + ": " + origin + " waits in another call", reason.origin};
  }
  if (reason.code == ErrorCode::peer_lost) {
    return {reason.code, name + ": " + origin + " couldn't go on with it; call it again", reason.origin};
  }
  if (reason.code == ErrorCode::non_finite_input) {
    const std::string what = "'s input has NaN, an infinity, or a number too large for its format";
    return {reason.code, name + ": " + origin + what, reason.origin};
  }
  if (!reason.mismatch) {
    return {ErrorCode::cancelled, name + ": " + origin + " withdrew it before it was done", reason.origin};
  }
  const Mismatch& mismatch = *reason.mismatch;
  return {ErrorCode::descriptor_mismatch,
          name + ": " + origin + " called " + describe(mismatch.own) + ", peer " + std::to_string(mismatch.other) +
              " called " + describe(mismatch.others),
          reason.origin};
}

}  // namespace pccl
