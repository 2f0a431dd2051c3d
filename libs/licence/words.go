package licence

import (
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

const statePrefix = "LICENCE_STATE_"

// StateWord is a state as it stands in tables, labels and details: `grace`.
func StateWord(s registryv1.LicenceState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), statePrefix))
}

// ParseState reads what StateWord wrote; a word that it never writes is unspecified.
func ParseState(word string) registryv1.LicenceState {
	return registryv1.LicenceState(registryv1.LicenceState_value[statePrefix+strings.ToUpper(word)])
}
