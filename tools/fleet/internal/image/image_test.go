package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/image"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func build(t *testing.T, s image.Spec) (id string, written []byte) {
	t.Helper()
	img, err := image.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	if id, err = img.ID(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := img.Write(&out); err != nil {
		t.Fatal(err)
	}
	return id, out.Bytes()
}

func program(file string) image.Spec {
	at := "/" + filepath.Base(file)
	return image.Spec{Files: map[string]string{at: file}, Entrypoint: []string{at}, User: image.Nobody}
}

// What needs a loader would end at once in an image that has none.
func TestProgramThatNeedsLibrariesIsRefused(t *testing.T) {
	if _, err := image.Program("/bin/sh"); err == nil {
		t.Error("it was taken")
	}
}

// header begins a program of Linux for a machine, and has nothing after that.
func header(machine elf.Machine) string {
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, elf.Header64{Ident: [elf.EI_NIDENT]byte{'\x7f', 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64})
	return out.String()
}

// An image is for the machines that its program is for, wherever it was made.
func TestImageIsForWhatItsProgramIsFor(t *testing.T) {
	for machine, want := range map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"} {
		spec, err := image.Program(write(t, "accessos", header(machine), 0o755))
		if err != nil {
			t.Fatal(err)
		}
		if _, written := build(t, spec); !strings.Contains(string(written), `"architecture":"`+want+`"`) {
			t.Errorf("a program for %s makes an image for something else than %s", machine, want)
		}
	}
	if _, err := image.Program(write(t, "accessos", header(elf.EM_RISCV), 0o755)); err == nil || !strings.Contains(err.Error(), "EM_RISCV") {
		t.Errorf("a program for neither: %v", err)
	}
}

// The same program, elsewhere, later, with another owner's mode: the same bytes. One bit more: another image.
func TestSameFilesMakeTheSameImage(t *testing.T) {
	one, two, other := write(t, "program", "x", 0o700), write(t, "program", "x", 0o755), write(t, "program", "y", 0o755)
	if err := os.Chtimes(one, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	first, a := build(t, program(one))
	second, b := build(t, program(two))
	third, _ := build(t, program(other))
	if first != second || !bytes.Equal(a, b) {
		t.Errorf("the same files made %s and %s", first, second)
	}
	if third == first {
		t.Error("other bytes made the same image")
	}
	if !strings.HasPrefix(first, "sha256:") || len(first) != len("sha256:")+64 {
		t.Errorf("%q is not an id", first)
	}
}

func TestImageHoldsWhatItWasToldAndNothingElse(t *testing.T) {
	_, written := build(t, program(write(t, "accessos", "x", 0o755)))
	outer := tar.NewReader(bytes.NewReader(written))
	var files []string
	for {
		h, err := outer.Next()
		if err != nil {
			break
		}
		if h.Name == "manifest.json" {
			var m []struct{ RepoTags []string }
			if err := json.NewDecoder(outer).Decode(&m); err != nil || len(m) != 1 || len(m[0].RepoTags) != 0 {
				t.Errorf("it has a name: %+v, %v", m, err)
			}
		}
		if strings.HasSuffix(h.Name, ".tar.gz") {
			files = list(t, outer)
		}
	}
	if want := []string{"accessos 0555 0"}; !slices.Equal(files, want) {
		t.Errorf("it holds %v", files)
	}
}

func TestFileThatIsAlsoADirectoryIsRefused(t *testing.T) {
	file := write(t, "a", "x", 0o644)
	if img, err := image.Build(image.Spec{Files: map[string]string{"/a": file, "/a/b": file}}); err == nil {
		if _, err = img.ID(); err == nil {
			t.Error("it was made")
		}
	}
}

// What a linker wrote into a program is in its bill.
func TestBillNamesFilesAndModules(t *testing.T) {
	program := filepath.Join(t.TempDir(), "bufcheck")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "a3os.app/tools/bufcheck").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := image.Spec{Files: map[string]string{"/program": program}}
	bill, err := s.BillOfMaterials("accessos", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.BillOfMaterials("accessos", "1.2.3")
	if err != nil || !bytes.Equal(bill, again) {
		t.Errorf("a second one differs: %v", err)
	}
	var read struct {
		BOMFormat, SpecVersion string
		Components             []struct{ Name, Type, Purl string }
	}
	if err := json.Unmarshal(bill, &read); err != nil {
		t.Fatal(err)
	}
	if read.BOMFormat != "CycloneDX" {
		t.Errorf("its form is %q", read.BOMFormat)
	}
	var names []string
	for _, c := range read.Components {
		names = append(names, c.Name)
	}
	for _, want := range []string{"/program", "std", "google.golang.org/protobuf"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not in it: %v", want, names)
		}
	}
}

// The server in the image says its version from files of the image alone: chroot(8) sees nothing else.
func TestPostgresRunsFromItsImageAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("that PostgreSQL runs from its image alone is not tested: only root can change the root of a process")
	}
	binaries, err := pgserver.Find(t.Context(), pgserver.Options{})
	if err != nil {
		t.Skipf("that PostgreSQL runs from its image alone is not tested: %v", err)
	}
	s, err := image.Postgres(t.Context(), binaries)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for to, from := range s.Files {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{s.Entrypoint[0], filepath.Join(binaries.Dir, "pg_isready")} {
		cmd := exec.CommandContext(t.Context(), "chroot", root, program, "--version")
		cmd.Env = s.Env
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), binaries.Version) {
			t.Errorf("%s says %s, %v", program, out, err)
		}
	}
	for to := range s.Files {
		if strings.HasSuffix(to, "/sh") || strings.Contains(to, "llvm") {
			t.Errorf("%s is in it", to)
		}
	}
}

// list is what a layer holds: names, modes and times.
func list(t *testing.T, layer io.Reader) (out []string) {
	t.Helper()
	plain, err := gzip.NewReader(layer)
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(plain)
	for {
		h, err := files.Next()
		if err != nil {
			return out
		}
		out = append(out, fmt.Sprintf("%s %04o %d", h.Name, h.Mode, h.ModTime.Unix()))
	}
}
