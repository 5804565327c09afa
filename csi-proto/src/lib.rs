//! The wire types of CSI 1.13 and of the kubelet's plugin registration.
