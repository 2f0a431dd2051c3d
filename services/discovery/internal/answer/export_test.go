package answer

import (
	"time"

	"a3os.app/libs/access"
	"a3os.app/services/discovery/internal/store"
)

// NewEdges are the edges that answers rest on, for the conformance suite.
func NewEdges(q *store.Queries, at *time.Time) access.Edges { return edges{q: q, at: at} }
