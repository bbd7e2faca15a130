package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func main() {
	addr := flag.String("l", "127.0.0.1:8989", "listen address")
	user := flag.String("u", "user:pass", "login")
	plain := flag.Bool("http", false, "no TLS")
	dir := flag.String("dir", "", "datastore directory (default: private temp dir)")
	flag.Parse()
	m := simulator.VPX()
	defer m.Remove()
	m.Machine = 0
	if err := m.Create(); err != nil {
		log.Fatal(err)
	}
	ds := simulator.Map.Any("Datastore").(*simulator.Datastore)
	if *dir != "" {
		ds.Info.GetDatastoreInfo().Url = *dir
		ds.Summary.Url = *dir
	}
	ds.Summary.FreeSpace, ds.Summary.Capacity, ds.Summary.Accessible, ds.Summary.MaintenanceMode = 8<<30, 10<<30, true, string(types.DatastoreSummaryMaintenanceModeStateNormal)
	u, _ := url.Parse("https://" + *user + "@" + *addr + "/sdk")
	m.Service.Listen = u
	if !*plain {
		m.Service.TLS = new(tls.Config)
	}
	s := m.Service.NewServer()
	fmt.Println("listening", s.URL.Host, ds.Name, ds.Info.GetDatastoreInfo().Url)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	<-c
	s.Close()
}
