"""What our passes cost, against a bare Hugging Face `sdpa` forward of the same tokens: one table, saved as JSON.

`subject` is what one size is measured on; `passes` and `studies` say what is timed, `rows` which of it at which sizes,
`measure` how, `goals` what we set out to reach, `table` runs it all. Read `rows`, then `measure`; a further row is one
line in `rows.ROWS`.
"""
