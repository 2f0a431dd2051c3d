package aws

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// A release whose program is for other machines than tasks run on is refused before anything of it is pushed, by name: its tasks would end at once.
func TestProgramForOtherMachinesThanTasksIsRefused(t *testing.T) {
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	for machine, want := range map[elf.Machine]string{elf.EM_X86_64: "", elf.EM_AARCH64: "is a program for arm64, and tasks run on amd64"} {
		var header bytes.Buffer
		if err := binary.Write(&header, binary.LittleEndian, elf.Header64{Ident: [elf.EI_NIDENT]byte{'\x7f', 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64}); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(t.TempDir(), b.Artefact)
		if err := os.WriteFile(program, header.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		release, err := local.Built(program)
		if err != nil {
			t.Fatal(err)
		}
		p := &Platform{Machine: &local.Platform{Settings: settings.Settings{Home: t.TempDir()}, State: &state.State{}, Programs: []string{program}}}
		if _, _, err := p.build(b, release); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("a program for %s: %v, want %q", machine, err, want)
		}
	}
}
