package discovery

import (
	"embed"

	"a3os.app/libs/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is runs, what they staged, and the history of access that they published.
func Schema() pg.Migration { return pg.Schema("discovery", migrations) }
