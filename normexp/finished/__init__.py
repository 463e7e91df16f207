"""A finished run, for use: what evaluate, predict and export share.

``finished_run`` loads its network with the weights that met the test set. Evaluate has settings
(``evaluation_settings``), ``scoring``, what answers are worth (``scores``) and what is
written of that (``evaluation_files``); predict has ``given_images`` and ``picture_sheet``, export
``exporting``.
"""
