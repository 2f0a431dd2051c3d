package integrations

import (
	"embed"

	"a3os.app/libs/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is a workspace's connections to systems.
func Schema() pg.Migration { return pg.Schema("integrations", migrations) }
