package accesstest_test

import (
	"testing"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

func TestMemoryIsEdges(t *testing.T) {
	accesstest.TestEdges(t, func(_ *testing.T, integration id.Integration, records []*discoveryv1.Record) access.Edges {
		return accesstest.NewMemory(integration, records...)
	})
}
