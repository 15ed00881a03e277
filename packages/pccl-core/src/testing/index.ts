export { EnginelessPeer, type EnginelessPeerOptions } from "./engineless-peer.js";
