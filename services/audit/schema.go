package audit

import (
	"embed"

	"a3os.app/libs/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the inbox that deeds write to and the log that only this service appends to.
func Schema() pg.Migration { return pg.Schema("audit", migrations) }
