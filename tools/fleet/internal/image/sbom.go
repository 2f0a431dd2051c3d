package image

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// BillOfMaterials is what is in an image, as CycloneDX JSON: each file with its digest, and of programs that Go linked the modules that
// they were linked from, which the linker wrote into them. It is the same for the same files.
func (s Spec) BillOfMaterials(name, version string) ([]byte, error) {
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{BOMRef: "image", Type: cdx.ComponentTypeContainer, Name: name, Version: version}}
	var components []cdx.Component
	for _, at := range slices.Sorted(maps.Keys(s.Files)) {
		digest, err := digestOf(s.Files[at])
		if err != nil {
			return nil, err
		}
		components = append(components, cdx.Component{BOMRef: "file:" + at, Type: cdx.ComponentTypeFile, Name: at,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: digest}}})
		if info, err := buildinfo.ReadFile(s.Files[at]); err == nil {
			components = append(components, linked(info)...)
		}
	}
	bom.Components = &components
	var out bytes.Buffer
	encoder := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	if err := encoder.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

// linked are the modules in a program, Go's own library among them.
func linked(info *debug.BuildInfo) []cdx.Component {
	out := []cdx.Component{module("std", info.GoVersion)}
	if info.Main.Path != "" {
		out = append(out, module(info.Main.Path, info.Main.Version))
	}
	for _, dep := range info.Deps {
		if dep.Replace != nil && dep.Replace.Version != "" {
			dep = dep.Replace
		}
		out = append(out, module(dep.Path, dep.Version))
	}
	return out
}

func module(path, version string) cdx.Component {
	version = cmp.Or(version, "(devel)")
	purl := "pkg:golang/" + path + "@" + version
	return cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl}
}

func digestOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
