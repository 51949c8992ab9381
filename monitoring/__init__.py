"""The monitor: does the champion's world still look like the one it was trained on?

Adapters of `cancellations.ports`: `report.EvidentlyMonitor` measures a window, `plots.ReportPictures`
draws it, and what versions are worth (`model_plots`). Evidently costs seconds to import, so it is
imported inside the one function that needs it.
"""
