package plane

import (
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// A set takes no licence whose serial it has: what is issued is beyond all that anybody knows of.
func TestLicenceIsIssuedBeyondAllThatTheSetHas(t *testing.T) {
	listed := func(serial int64) []*registryv1.IssuedLicence {
		return []*registryv1.IssuedLicence{{Licence: &registryv1.Licence{Serial: serial}}}
	}
	for name, c := range map[string]struct {
		known *registryv1.ListLicencesResponse
		want  int64
	}{
		"the first":                     {&registryv1.ListLicencesResponse{}, 1},
		"the set goes by the newest":    {&registryv1.ListLicencesResponse{Licences: listed(2), Report: &registryv1.LicenceReport{Serial: 2}}, 3},
		"it was not heard of since":     {&registryv1.ListLicencesResponse{Licences: listed(3), Report: &registryv1.LicenceReport{Serial: 2}}, 4},
		"the registry was restored":     {&registryv1.ListLicencesResponse{Licences: listed(1), Report: &registryv1.LicenceReport{Serial: 2}}, 3},
		"and the set has one for later": {&registryv1.ListLicencesResponse{Licences: listed(2), Report: &registryv1.LicenceReport{Serial: 2, NextSerial: 3}}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			if got := serialBeyond(c.known); got != c.want {
				t.Errorf("it is %d, want %d", got, c.want)
			}
		})
	}
}
