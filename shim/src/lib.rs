//! Placeholder head, replaced by the layer's own map.
