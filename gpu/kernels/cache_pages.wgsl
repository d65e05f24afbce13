// Part of the kernels that work on a cache of keys and values: entry j of a text is row j % PAGE_ROWS of the pool's page
// pages[table + j / PAGE_ROWS], where `table` is the first place of the text's own table in `pages`.

override PAGE_ROWS: u32; // a multiple of 8: eight neighbours from a multiple of 8 on lie in one page

@group(0) @binding(11) var<storage, read> pages: array<u32>;

fn key_row(table: u32, entry: u32) -> u32 {
  return pages[table + entry / PAGE_ROWS] * PAGE_ROWS + entry % PAGE_ROWS;
}
