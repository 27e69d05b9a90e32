//! Members that talk over real TCP, and strangers at the peer port.

mod peer {
    mod fixed_node;
    mod links;
    mod member;
    mod port;
}
