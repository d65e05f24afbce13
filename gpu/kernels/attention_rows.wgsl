// In place of cache_pages.wgsl for keys and values that lie in a row: those of packed rows, or of the state.

fn key_row(table: u32, key: u32) -> u32 {
  return key;
}
